/* What differs between processes of one machine that a container engine keeps apart. */
#ifndef RP_NAMESPACES_H
#define RP_NAMESPACES_H

#include <stdint.h>

/* In which pids mean what they mean here; 0: unknown. */
uint32_t rp_pid_namespace(void);

/* CLOCK_MONOTONIC_COARSE as the machine has it, in ns, whatever time namespace this process lives in: what is
 * written down with it means the same to everybody. */
uint64_t rp_machine_ns(void);

/* In a forked child: it may live in another one than its parent. */
void rp_forget_namespaces(void);

#endif
