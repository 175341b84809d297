/* Preloaded into a process under test: counts the calls that change files below a folder, and makes one of them go
 * wrong. What is watched is asked of the kernel (/proc/self/fd), so that nothing has to be followed from call to call.
 *
 * arm(folder, at, how, number): from now on the at-th such call kills the process (how = 1), fails once with errno
 * number (how = 2), or fails and so does every later one that needs room (how = 3); at = 0 only counts.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum { COUNT, KILL, ONCE, FULL };
static char folder[PATH_MAX];
static int how, number;
static long at, calls;

void arm(const char *where, long nth, int action, int error) {
  snprintf(folder, sizeof folder, "%s/", where);
  at = nth, how = action, number = error, calls = 0;
}

long counted(void) { return calls; }

static int below(const char *path) {
  return !strncmp(path, folder, strlen(folder)) || (strlen(path) + 1 == strlen(folder) && !strncmp(path, folder, strlen(path)));
}

static int watched_file(int fd) {
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t size = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
  if (size < 0) return 0;
  path[size] = 0;
  return below(path);
}

static int watched(int dir, const char *path) {
  if (!*folder || !path) return 0;
  return path[0] == '/' || dir == AT_FDCWD ? below(path) : watched_file(dir);
}

/* 1 where the call is to fail. Room is never missing for what takes something away. */
static int wrong(int takes_room) {
  long call = __sync_add_and_fetch(&calls, 1);
  if (how == KILL && call == at) {
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
  }
  if ((how == ONCE && call == at) || (how == FULL && call >= at && takes_room)) {
    errno = number;
    return 1;
  }
  return 0;
}

#define REAL(type, name, ...) \
  static type (*real)(__VA_ARGS__); \
  if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)
#define OPEN(name, dir, call, ...) \
  mode_t mode = 0; \
  if (flags & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); } \
  if (flags & (O_WRONLY | O_RDWR | O_CREAT) && watched(dir, path) && wrong(1)) return -1; \
  return call;

int open(const char *path, int flags, ...) { REAL(int, open, const char *, int, ...); OPEN(open, AT_FDCWD, real(path, flags, mode)) }
int open64(const char *path, int flags, ...) { REAL(int, open64, const char *, int, ...); OPEN(open64, AT_FDCWD, real(path, flags, mode)) }
int openat(int dir, const char *path, int flags, ...) { REAL(int, openat, int, const char *, int, ...); OPEN(openat, dir, real(dir, path, flags, mode)) }
int openat64(int dir, const char *path, int flags, ...) { REAL(int, openat64, int, const char *, int, ...); OPEN(openat64, dir, real(dir, path, flags, mode)) }

#define OF_FILE(type, name, room, params, args, ...) \
  type name params { REAL(type, name, __VA_ARGS__); if (*folder && watched_file(fd) && wrong(room)) return -1; return real args; }
OF_FILE(ssize_t, write, 1, (int fd, const void *data, size_t size), (fd, data, size), int, const void *, size_t)
OF_FILE(ssize_t, pwrite, 1, (int fd, const void *data, size_t size, off_t to), (fd, data, size, to), int, const void *, size_t, off_t)
OF_FILE(ssize_t, pwrite64, 1, (int fd, const void *data, size_t size, off64_t to), (fd, data, size, to), int, const void *, size_t, off64_t)
OF_FILE(int, fsync, 1, (int fd), (fd), int)
OF_FILE(int, fdatasync, 1, (int fd), (fd), int)
OF_FILE(int, ftruncate, 1, (int fd, off_t size), (fd, size), int, off_t)
OF_FILE(int, ftruncate64, 1, (int fd, off64_t size), (fd, size), int, off64_t)

#define OF_PATH(name, room, where, params, args, ...) \
  int name params { REAL(int, name, __VA_ARGS__); if ((where) && wrong(room)) return -1; return real args; }
OF_PATH(mkdir, 1, watched(AT_FDCWD, path), (const char *path, mode_t mode), (path, mode), const char *, mode_t)
OF_PATH(mkdirat, 1, watched(dir, path), (int dir, const char *path, mode_t mode), (dir, path, mode), int, const char *, mode_t)
OF_PATH(unlink, 0, watched(AT_FDCWD, path), (const char *path), (path), const char *)
OF_PATH(rmdir, 0, watched(AT_FDCWD, path), (const char *path), (path), const char *)
OF_PATH(unlinkat, 0, watched(dir, path), (int dir, const char *path, int flags), (dir, path, flags), int, const char *, int)
OF_PATH(rename, 1, watched(AT_FDCWD, from) || watched(AT_FDCWD, to), (const char *from, const char *to), (from, to), const char *, const char *)
OF_PATH(renameat, 1, watched(a, from) || watched(b, to), (int a, const char *from, int b, const char *to), (a, from, b, to), int, const char *, int, const char *)
OF_PATH(renameat2, 1, watched(a, from) || watched(b, to), (int a, const char *from, int b, const char *to, unsigned flags), (a, from, b, to, flags), int, const char *, int, const char *, unsigned)
OF_PATH(utimensat, 1, watched(dir, path), (int dir, const char *path, const struct timespec times[2], int flags), (dir, path, times, flags), int, const char *, const struct timespec *, int)
