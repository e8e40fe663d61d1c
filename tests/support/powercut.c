/* Journals what a disk would still hold after a power cut. Preloaded into an engine.
 *
 * Watches the files below POWERCUT_ROOT and appends one line per event to POWERCUT_JOURNAL:
 *
 *   S ino size             fsync or fdatasync of a regular file returned; its first `size`
 *                          bytes, those it had when the call began, are durable
 *   E ino                  a directory that holds this file is about to be synced
 *   D offset path          fsync of a directory returned; renames and unlinks in it that the
 *                          journal held before `offset` are durable
 *   R saved ino old new    a rename is about to happen
 *   U saved path           an unlink is about to happen
 *
 * Fields are separated by tabs. What a rename or an unlink would destroy is kept as a hard
 * link named `saved` in POWERCUT_SAVED (on the same file system), so that it can be undone.
 * Sizes are enough because an append-only file is never rewritten in place.
 *
 * While the file POWERCUT_STALL exists, the disk stalls: no fsync in the root returns.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINE_BYTES (3 * PATH_MAX)

static atomic_ulong saved_count;

static const char *root(void) { return getenv("POWERCUT_ROOT"); }

/* One write of a whole line: O_APPEND keeps lines of several threads and forks apart. */
static void journal(const char *line) {
    const char *path = getenv("POWERCUT_JOURNAL");
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    size_t length = strlen(line);
    if (fd < 0 || write(fd, line, length) != (ssize_t)length) abort();
    close(fd);
}

static long long journal_size(void) {
    struct stat status;
    return stat(getenv("POWERCUT_JOURNAL"), &status) == 0 ? (long long)status.st_size : 0;
}

static int is_below_root(const char *path) {
    const char *top = root();
    size_t length = top ? strlen(top) : 0;
    return length && strncmp(path, top, length) == 0 && path[length] == '/';
}

/* The absolute spelling of `path`, whose last part need not exist; 0 outside the root. */
static int locate(const char *path, char *absolute) {
    char copy[PATH_MAX], folder[PATH_MAX];
    if (!root() || strlen(path) >= sizeof copy) return 0;
    strcpy(copy, path);
    char *slash = strrchr(copy, '/');
    const char *name = slash ? slash + 1 : copy;
    if (slash) *slash = '\0';
    if (!realpath(!slash ? "." : *copy ? copy : "/", folder)) return 0;
    if (snprintf(absolute, PATH_MAX, "%s/%s", folder, name) >= PATH_MAX) return 0;
    return is_below_root(absolute);
}

/* Keeps the file at `path` alive under a name of its own, "-" if there is no file. */
static void save(const char *path, char *name) {
    char kept[PATH_MAX];
    sprintf(name, "%d-%lu", getpid(), atomic_fetch_add(&saved_count, 1));
    if (snprintf(kept, sizeof kept, "%s/%s", getenv("POWERCUT_SAVED"), name) >= PATH_MAX) abort();
    if (link(path, kept) != 0) {
        if (errno != ENOENT) abort();
        strcpy(name, "-");
    }
}

static void journal_names(const char *path) {
    char line[64];
    DIR *folder = opendir(path);
    if (!folder) return;
    for (struct dirent *entry; (entry = readdir(folder));) {
        sprintf(line, "E\t%llu\n", (unsigned long long)entry->d_ino);
        if (entry->d_type == DT_REG) journal(line);
    }
    closedir(folder);
}

static void await_disk(void) {
    while (access(getenv("POWERCUT_STALL"), F_OK) == 0) usleep(1000);
}

static int synced(int fd, const char *call) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, call);
    char link_path[64], path[PATH_MAX + 1], line[LINE_BYTES];
    struct stat before;
    if (!root() || fstat(fd, &before) != 0) return real(fd);
    sprintf(link_path, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link_path, path, PATH_MAX);
    path[length > 0 ? length : 0] = '\0';
    int is_folder = S_ISDIR(before.st_mode) && (is_below_root(path) || !strcmp(path, root()));
    int is_file = S_ISREG(before.st_mode) && is_below_root(path);
    long long offset = journal_size();
    if (is_folder) journal_names(path);
    if (is_folder || is_file) await_disk();
    int result = real(fd);
    int error = errno;
    if (result == 0 && is_folder) {
        snprintf(line, sizeof line, "D\t%lld\t%s\n", offset, path);
        journal(line);
    } else if (result == 0 && is_file) {
        sprintf(line, "S\t%llu\t%lld\n", (unsigned long long)before.st_ino,
                (long long)before.st_size);
        journal(line);
    }
    errno = error;
    return result;
}

int fsync(int fd) { return synced(fd, "fsync"); }

int fdatasync(int fd) { return synced(fd, "fdatasync"); }

int rename(const char *from, const char *to) {
    int (*real)(const char *, const char *) =
        (int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename");
    char source[PATH_MAX], target[PATH_MAX], saved[64], line[LINE_BYTES];
    struct stat status;
    int from_root = locate(from, source), to_root = locate(to, target);
    if (from_root && to_root && stat(from, &status) == 0) {
        save(to, saved);
        snprintf(line, sizeof line, "R\t%s\t%llu\t%s\t%s\n", saved,
                 (unsigned long long)status.st_ino, source, target);
        journal(line);
    }
    return real(from, to);
}

int unlink(const char *path) {
    int (*real)(const char *) = (int (*)(const char *))dlsym(RTLD_NEXT, "unlink");
    char target[PATH_MAX], saved[64], line[LINE_BYTES];
    struct stat status;
    if (locate(path, target) && lstat(path, &status) == 0 && S_ISREG(status.st_mode)) {
        save(path, saved);
        snprintf(line, sizeof line, "U\t%s\t%s\n", saved, target);
        journal(line);
    }
    return real(path);
}
