/* Makes chosen calls of the C library hang while a file says so, for the tests of `serve`.

   HANG_FILE holds the names of calls ("write seek"), or is absent; HANG_FOLDER is the folder whose
   files are affected. A call hangs until the file does not name it. Loaded by LD_PRELOAD. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static int (*real_open)(const char *, int, ...);
static ssize_t (*real_read)(int, void *, size_t);
static int (*real_close)(int);

static int chosen(const char *call) {
  const char *path = getenv("HANG_FILE");
  char text[256] = " ", word[32];
  if (!path) return 0;
  int file = real_open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  ssize_t length = real_read(file, text + 1, sizeof text - 3);
  real_close(file);
  text[1 + (length > 0 ? length : 0)] = ' ';
  snprintf(word, sizeof word, " %s ", call);
  return strstr(text, word) != NULL;
}

__attribute__((constructor)) static void find(void) {
  real_open = dlsym(RTLD_NEXT, "open");
  real_read = dlsym(RTLD_NEXT, "read");
  real_close = dlsym(RTLD_NEXT, "close");
}

static int inside(const char *path) {
  const char *folder = getenv("HANG_FOLDER");
  return path && folder && strncmp(path, folder, strlen(folder)) == 0;
}

static int inside_of(int file) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return inside(path);
}

static void hang(const char *call, int affected) {
  if (!affected) return;
  struct timespec step = {0, 20 * 1000 * 1000};
  while (chosen(call)) nanosleep(&step, NULL);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define BY_PATH(call, type, name, parameters, ...) \
  type name parameters { hang(call, inside(path)); return REAL(name)(__VA_ARGS__); }
#define BY_FILE(call, type, name, parameters, ...) \
  type name parameters { hang(call, inside_of(file)); return REAL(name)(__VA_ARGS__); }

int open(const char *path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;
  va_end(more);
  hang("open", inside(path));
  return real_open(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;
  va_end(more);
  hang("open", inside(path));
  return REAL(open64)(path, flags, mode);
}

BY_FILE("write", ssize_t, write, (int file, const void *data, size_t size), file, data, size)
BY_FILE("write", ssize_t, pwrite64, (int file, const void *data, size_t size, off64_t at), file,
        data, size, at)
BY_FILE("read", ssize_t, read, (int file, void *data, size_t size), file, data, size)
BY_FILE("seek", off_t, lseek, (int file, off_t at, int from), file, at, from)
BY_FILE("seek", off64_t, lseek64, (int file, off64_t at, int from), file, at, from)
BY_FILE("truncate", int, ftruncate, (int file, off_t size), file, size)
BY_FILE("truncate", int, ftruncate64, (int file, off64_t size), file, size)
BY_FILE("fsync", int, fsync, (int file), file)
BY_FILE("fsync", int, fdatasync, (int file), file)
BY_FILE("close", int, close, (int file), file)
BY_FILE("stat", int, fstat, (int file, struct stat *found), file, found)
BY_FILE("stat", int, fstat64, (int file, struct stat64 *found), file, found)
BY_PATH("stat", int, stat, (const char *path, struct stat *found), path, found)
BY_PATH("stat", int, stat64, (const char *path, struct stat64 *found), path, found)
BY_PATH("stat", int, lstat, (const char *path, struct stat *found), path, found)
BY_PATH("stat", int, lstat64, (const char *path, struct stat64 *found), path, found)
BY_PATH("stat", int, fstatat64, (int at, const char *path, struct stat64 *found, int flags), at,
        path, found, flags)
BY_PATH("unlink", int, unlink, (const char *path), path)
BY_PATH("rename", int, rename, (const char *path, const char *other), path, other)
BY_PATH("list", DIR *, opendir, (const char *path), path)
BY_PATH("space", int, statvfs, (const char *path, struct statvfs *found), path, found)
BY_PATH("space", int, statvfs64, (const char *path, struct statvfs64 *found), path, found)
BY_PATH("mkdir", int, mkdir, (const char *path, mode_t mode), path, mode)
