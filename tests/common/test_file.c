/* file: whole writes, replaced files, directories and the lock. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/err.h"
#include "common/file.h"
#include "common/mem.h"

static char dir[] = "/tmp/trine-test-file.XXXXXX";

static void make_dir(void)
{
    cr_assert_not_null(mkdtemp(dir));
}

static void remove_dir(void)
{
    char *command = xasprintf("rm -rf '%s'", dir);
    int code = system(command);

    free(command);
    cr_assert_eq(code, 0);
}

static char *in_dir(const char *name)
{
    return xasprintf("%s/%s", dir, name);
}

TestSuite(file, .init = make_dir, .fini = remove_dir);

Test(file, a_replaced_file_has_the_new_content_and_leaves_nothing_beside_it)
{
    char *path = in_dir("vote"), *tmp = in_dir("vote.tmp");
    struct buf content = BUF_INIT;

    cr_assert_eq(file_replace(path, "old", 3), OK);
    cr_assert_eq(file_replace(path, "new one", 7), OK);

    cr_assert_eq(file_read_all(path, 100, &content), OK);
    cr_assert(slice_eq(buf_slice(&content), SLICE_LIT("new one")));
    cr_assert_eq(access(tmp, F_OK), -1);
    buf_fini(&content);
    free(path);
    free(tmp);
}

Test(file, a_replace_that_fails_leaves_the_old_content_and_no_rest)
{
    char *path = in_dir("vote"), *tmp = in_dir("vote.tmp");
    struct buf content = BUF_INIT;

    cr_assert_eq(file_replace(path, "old", 3), OK);
    cr_assert_eq(mkdir(tmp, 0700), 0); /* so that the temporary file cannot be written */

    cr_assert_eq(file_replace(path, "new", 3), E_IO);
    cr_assert_eq(errno, EISDIR);
    cr_assert_eq(file_read_all(path, 100, &content), OK);
    cr_assert(slice_eq(buf_slice(&content), SLICE_LIT("old")));

    rmdir(tmp);
    unlink(path);
    cr_assert_eq(mkdir(path, 0700), 0); /* so that the rename fails */
    cr_assert_eq(file_replace(path, "new", 3), E_IO);
    cr_assert_eq(access(tmp, F_OK), -1);
    buf_fini(&content);
    free(path);
    free(tmp);
}

Test(file, replacing_in_a_directory_that_is_not_there_is_not_found)
{
    char *path = in_dir("no/such/file");

    cr_assert_eq(file_replace(path, "x", 1), E_NOT_FOUND);
    cr_assert_eq(errno, ENOENT);
    free(path);
}

Test(file, reading_appends_up_to_the_limit_and_nothing_over_it)
{
    char *path = in_dir("data");
    struct buf content = BUF_INIT;
    char *bytes = xcalloc(1, 40000);

    cr_assert_eq(file_replace(path, bytes, 40000), OK);
    buf_add_str(&content, "before");

    cr_assert_eq(file_read_all(path, 39999, &content), E_TOO_BIG);
    cr_assert_eq(content.len, 6);
    cr_assert_eq(file_read_all(path, 40000, &content), OK);
    cr_assert_eq(content.len, 40006);
    cr_assert_eq(file_read_all("/no/such/file", 1, &content), E_NOT_FOUND);
    cr_assert_eq(file_read_all(dir, 1, &content), E_IO);
    cr_assert_eq(content.len, 40006);
    buf_fini(&content);
    free(bytes);
    free(path);
}

Test(file, pwrite_puts_bytes_where_they_belong)
{
    char *path = in_dir("data");
    struct buf content = BUF_INIT;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    cr_assert_eq(file_write_all(fd, "aaaaaaaa", 8), OK);
    cr_assert_eq(file_pwrite_all(fd, "bb", 2, 3), OK);
    cr_assert_eq(file_pwrite_all(fd, "", 0, 100), OK);
    close(fd);

    cr_assert_eq(file_read_all(path, 100, &content), OK);
    cr_assert(slice_eq(buf_slice(&content), SLICE_LIT("aaabbaaa")));
    buf_fini(&content);
    free(path);
}

Test(file, a_full_disk_and_a_bad_descriptor_are_told_apart)
{
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);

    cr_assert_geq(full, 0);
    cr_assert_eq(file_write_all(full, "x", 1), E_NO_SPACE_LEFT);
    cr_assert_eq(errno, ENOSPC);
    close(full);
    cr_assert_eq(file_write_all(-1, "x", 1), E_IO);
    cr_assert_eq(file_pwrite_all(-1, "x", 1, 0), E_IO);
    cr_assert_eq(errno, EBADF);
}

Test(file, directories_are_made_with_what_is_missing_above_them)
{
    char *path = in_dir("a/b//c/"), *again = in_dir("a/b/c");
    struct stat st;

    cr_assert_eq(file_mkdir_p(path, 0700), OK);
    cr_assert_eq(file_mkdir_p(again, 0700), OK);
    cr_assert_eq(stat(again, &st), 0);
    cr_assert_eq(st.st_mode & 07777, 0700);
    cr_assert_eq(file_mkdir_p("/", 0700), OK);
    cr_assert_eq(file_sync_dir(again), OK);
    free(path);
    free(again);
}

Test(file, a_directory_cannot_be_made_below_or_over_a_file)
{
    char *file = in_dir("file"), *below = in_dir("file/dir");

    cr_assert_eq(file_replace(file, "", 0), OK);

    cr_assert_eq(file_mkdir_p(file, 0700), E_IO);
    cr_assert_eq(errno, ENOTDIR);
    cr_assert_eq(file_mkdir_p(below, 0700), E_IO);
    cr_assert_eq(file_mkdir_p("", 0700), E_NOT_FOUND);
    cr_assert_eq(file_sync_dir(file), E_IO);
    cr_assert_eq(file_sync_dir("/no/such/dir"), E_NOT_FOUND);
    free(file);
    free(below);
}

Test(file, a_lock_is_held_once_and_names_its_holder)
{
    char *path = in_dir("LOCK.pid");
    int fd = -1, second = -1;
    long holder = -1;

    cr_assert_eq(file_lock(path, &fd, &holder), OK);
    cr_assert_geq(fd, 0);

    cr_assert_eq(file_lock(path, &second, &holder), E_LOCKED);
    cr_assert_eq(holder, (long)getpid());
    cr_assert_eq(second, -1);
    cr_assert_eq(file_lock(path, &second, NULL), E_LOCKED);

    close(fd);
    cr_assert_eq(file_lock(path, &second, &holder), OK);
    close(second);
    cr_assert_eq(file_lock("/no/such/dir/LOCK", &second, &holder), E_NOT_FOUND);
    free(path);
}

Test(file, a_lock_goes_with_the_process_that_had_it)
{
    char *path = in_dir("LOCK.pid");
    int ready[2], fd = -1, status;
    long holder = 0;
    char byte;

    cr_assert_eq(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (file_lock(path, &fd, &holder) != OK || write(ready[1], "x", 1) != 1)
            _exit(1);
        pause();
        _exit(0);
    }
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    cr_assert_eq(file_lock(path, &fd, &holder), E_LOCKED);
    cr_assert_eq(holder, (long)pid);

    kill(pid, SIGKILL);
    cr_assert_eq(waitpid(pid, &status, 0), pid);

    cr_assert_eq(file_lock(path, &fd, &holder), OK);
    close(fd);
    free(path);
}

Test(file, a_lock_file_with_nonsense_in_it_has_an_unknown_holder)
{
    char *path = in_dir("LOCK.pid");
    int fd, second;
    long holder = -1;

    cr_assert_eq(file_lock(path, &fd, NULL), OK);
    cr_assert_eq(file_pwrite_all(fd, "nonsense of somebody who wrote into it", 38, 0), OK);

    cr_assert_eq(file_lock(path, &second, &holder), E_LOCKED);
    cr_assert_eq(holder, 0);
    close(fd);
    free(path);
}
