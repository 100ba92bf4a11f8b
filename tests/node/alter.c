/* alter - changes one byte of the newest record that holds TEXT, and the hash of the applied entries, in a store that nobody has
 * open: what a member looks like that has computed something else than the others. Through LevelDB, so that all checksums are
 * right; the hash too, because a disk that lies about a value is found when it is read, not by this hash.
 *   trine-alter STORE/db TEXT */
#include <stdio.h>
#include <string.h>

#include "common/err.h"
#include "stored/db.h"

static bool text_alter(struct db *db, struct db_batch *batch, const char *text)
{
    struct slice key, value;
    struct db_iter *it = db_iter_new(db, NULL, true);
    struct buf found_key = BUF_INIT, found = BUF_INIT;

    for (db_iter_seek(it, SLICE_LIT("R")); db_iter_get(it, &key, &value) && key.data[0] == 'R'; db_iter_next(it)) {
        if (!memmem(value.data, value.len, text, strlen(text)))
            continue;
        buf_reset(&found_key);
        buf_reset(&found);
        buf_add_slice(&found_key, key);
        buf_add_slice(&found, value);
    }
    db_iter_free(it);
    if (found.len) {
        *(uint8_t *)memmem(found.data, found.len, text, strlen(text)) ^= 1;
        db_batch_put(batch, buf_slice(&found_key), buf_slice(&found));
    }
    bool altered = found.len > 0;
    buf_fini(&found_key);
    buf_fini(&found);
    return altered;
}

static bool hash_alter(struct db *db, struct db_batch *batch)
{
    struct buf hash = BUF_INIT;
    bool found = db_get(db, NULL, SLICE_LIT("mh"), &hash) == 0 && hash.len == 8;

    if (found) {
        hash.data[0] ^= 1;
        db_batch_put(batch, SLICE_LIT("mh"), buf_slice(&hash));
    }
    buf_fini(&hash);
    return found;
}

int main(int argc, char **argv)
{
    struct buf why = BUF_INIT;
    struct db *db;

    if (argc != 3 || argv[2][0] == '\0') {
        fprintf(stderr, "usage: trine-alter STORE/db TEXT\n");
        return 2;
    }
    if (db_open(&db, argv[1], false, &why)) {
        fprintf(stderr, "alter: %.*s\n", (int)why.len, (const char *)why.data);
        return 1;
    }
    struct db_batch *batch = db_batch_new();
    bool done = text_alter(db, batch, argv[2]) && hash_alter(db, batch);

    if (done)
        db_write(db, batch, true);
    else
        fprintf(stderr, "alter: %s holds no such record, or no hash\n", argv[1]);
    db_batch_free(batch);
    db_close(db);
    buf_fini(&why);
    return !done;
}
