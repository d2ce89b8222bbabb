/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What the fuzz targets share. Each is one file with LLVMFuzzerTestOneInput(); with
 * -DRP_FUZZ_STANDALONE it gets a main() that runs the files and directories named as arguments,
 * for compilers without libFuzzer.
 *
 * The targets of rproxy/http link without APR: apr_palloc() is defined here and gives every
 * allocation a block of its own, so that a sanitizer sees an overrun of any of them. FUZZ_POOL
 * stands for a pool, fuzz_free() ends its life. A target with pools of its own defines
 * FUZZ_OWN_POOLS. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <apr_pools.h>

#ifdef RP_FUZZ_STANDALONE
#include <dirent.h>
#endif

#define FUZZ_POOL ((apr_pool_t *)&fuzz_blocks)

/** Long inputs come in about this many pieces, short ones byte by byte. */
#define FUZZ_PIECES 12

#define FUZZ_ASSERT(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef union fuzz_block {
    union fuzz_block *next;
    max_align_t align;
} fuzz_block;

#ifndef FUZZ_OWN_POOLS

static fuzz_block *fuzz_blocks;

APR_DECLARE(void *) apr_palloc(apr_pool_t *pool, apr_size_t size)
{
    fuzz_block *block = malloc(sizeof(*block) + size);

    (void)pool;
    if (block == NULL) {
        abort();
    }
    block->next = fuzz_blocks;
    fuzz_blocks = block;
    return block + 1;
}

/** Frees everything allocated since the last call. */
static inline void fuzz_free(void)
{
    while (fuzz_blocks != NULL) {
        fuzz_block *next = fuzz_blocks->next;

        free(fuzz_blocks);
        fuzz_blocks = next;
    }
}

/** A copy in a block of exactly this size. */
static inline char *fuzz_copy(const void *data, size_t size)
{
    char *copy = apr_palloc(FUZZ_POOL, size);

    if (size > 0) {
        memcpy(copy, data, size);
    }
    return copy;
}

/** The input up to its first NUL, as a string. */
static inline char *fuzz_string(const uint8_t *data, size_t size)
{
    size_t len = size > 0 ? strnlen((const char *)data, size) : 0;
    char *copy = apr_palloc(FUZZ_POOL, len + 1);

    if (len > 0) {
        memcpy(copy, data, len);
    }
    copy[len] = '\0';
    return copy;
}

#endif                                  /* FUZZ_OWN_POOLS */

#ifdef RP_FUZZ_STANDALONE

static void fuzz_run_file(const char *path)
{
    static uint8_t data[1 << 20];
    FILE *file = fopen(path, "rb");
    size_t size;

    if (file == NULL) {
        perror(path);
        exit(1);
    }
    size = fread(data, 1, sizeof(data), file);
    fclose(file);
    LLVMFuzzerTestOneInput(data, size);
}

int main(int argc, char **argv)
{
    int count = 0;

    for (int i = 1; i < argc; i++) {
        DIR *directory = opendir(argv[i]);
        struct dirent *entry;

        if (directory == NULL) {
            fuzz_run_file(argv[i]);
            count++;
            continue;
        }
        while ((entry = readdir(directory)) != NULL) {
            char path[4096];

            if (entry->d_name[0] != '.') {
                snprintf(path, sizeof(path), "%s/%s", argv[i], entry->d_name);
                fuzz_run_file(path);
                count++;
            }
        }
        closedir(directory);
    }
    printf("%d inputs passed\n", count);
    return count == 0;
}

#endif
#endif
