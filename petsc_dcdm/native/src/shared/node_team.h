/* Work in parts: by the threads of this process, or by all ranks of a node that share the memory the parts work on. */
#ifndef DCDM_NODE_TEAM_H
#define DCDM_NODE_TEAM_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of what a part function gets, at most. */
enum { TEAM_ARGUMENTS = 8192 };

/* One part of the work. `arguments` is one copy for all parts; what they add up there, atomically, the caller sees. */
typedef void part_function(void *arguments, int part);

/* All parts, each on a thread of its own as far as there are so many; returns when all are done. Where ranks share the
 * work, all that `arguments` points to lies in memory that they share. */
void dcdm_run(part_function *function, void *arguments, size_t size, int parts);

/* The first of n things that a part has: things are shared out evenly, in order. */
static inline int64_t first_of(int64_t n, int part, int parts) { return n * part / parts; }

/* All i of those. */
#define FOR_PART(i, n, part, parts) \
    for (int64_t i = first_of(n, part, parts), i##_end = first_of(n, (part) + 1, parts); i < i##_end; i++)

/* Where the parts of one piece of work wait for each other. */
typedef struct {
    struct dcdm_team *node; /* NULL: threads of one process */
    int count;              /* of parts */
} dcdm_meeting;

/* As dcdm_run for parts that meet: all are worked on at once, as many of `parts` as there are threads. `arguments`
 * begins with the meeting, which is filled in here. */
void dcdm_run_together(part_function *function, void *arguments, size_t size, int parts);

/* All parts of a piece of work, as many as a team has threads, from the one who leads it, whether others serve or
 * not. */
void dcdm_team_run(struct dcdm_team *team, part_function *function, void *arguments, size_t size);

/* Returns when all parts have come here. What any has written before, all may read after it. */
void dcdm_meet(const dcdm_meeting *meeting);

#endif
