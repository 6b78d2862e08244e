/* A system that lies to one process: put before its libraries, it answers what a test tells it to.
 *
 * It reads eight numbers of 64 bits in a file that the test maps, too: by how many seconds the wall clock
 * is wrong, how many accepts still fail, with which errno, and whether there is no randomness. All else goes
 * to the kernel as it is. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { CLOCK_OFF_SECONDS, ACCEPTS_THAT_FAIL, ACCEPT_ERRNO, NO_RANDOMNESS, NUMBERS = 8 };

static volatile int64_t honest[NUMBERS];
static volatile int64_t *told = honest;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FALSE_SYSTEM");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *at = mmap(NULL, sizeof honest, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (at != MAP_FAILED) told = at;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += told[CLOCK_OFF_SECONDS];
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec read;
    int result = clock_gettime(CLOCK_REALTIME, &read);
    if (result == 0) {
        now->tv_sec = read.tv_sec;
        now->tv_usec = read.tv_nsec / 1000;
    }
    return result;
}

time_t time(time_t *now) {
    struct timespec read = {0};
    clock_gettime(CLOCK_REALTIME, &read);
    if (now) *now = read.tv_sec;
    return read.tv_sec;
}

int accept4(int socket, struct sockaddr *restrict address, socklen_t *restrict length, int flags) {
    if (told[ACCEPTS_THAT_FAIL] > 0) {
        told[ACCEPTS_THAT_FAIL]--;
        errno = (int)told[ACCEPT_ERRNO];
        return -1;
    }
    return (int)syscall(SYS_accept4, socket, address, length, flags);
}

ssize_t getrandom(void *bytes, size_t count, unsigned int flags) {
    if (told[NO_RANDOMNESS] && count > 0) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_getrandom, bytes, count, flags);
}
