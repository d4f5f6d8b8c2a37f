/* Fills in blanks from C: infill MODEL_FOLDER 'Text with {12} blanks' [SEED]. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgm.h"

static int told(const PgmStep *step, void *user) {
    size_t *decoded = user;
    *decoded += step->n_decoded;
    fprintf(stderr, "step %zu of %zu: %zu tokens\n", step->step, step->n_steps, *decoded);
    return 0; /* anything else cancels */
}

static int cancels(const PgmStep *step, void *user) {
    (void)user;
    return step->step >= 2;
}

static void read_so_far(double share, void *user) {
    *(double *)user = share;
}

static int fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, pgm_last_error());
    return EXIT_FAILURE;
}

/* The contents of a file of a folder, or nothing. */
static uint8_t *contents(const char *folder, const char *name, size_t *length) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return NULL;
    }
    fseek(file, 0, SEEK_END);
    *length = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(*length + 1);
    if (bytes != NULL && fread(bytes, 1, *length, file) != *length) {
        free(bytes);
        bytes = NULL;
    }
    fclose(file);
    return bytes;
}

/* As an application opens a model that it carries within itself. */
static PgmEngine *open_bytes(const char *folder, double *share) {
    const char *names[] = {"config.json", "model.safetensors", "tokenizer.json"};
    uint8_t *files[3];
    size_t lengths[3] = {0, 0, 0};
    for (int i = 0; i < 3; i++) {
        files[i] = contents(folder, names[i], &lengths[i]);
    }
    PgmEngine *engine = pgm_open_bytes(files[0], lengths[0], files[1], lengths[1], files[2], lengths[2], "auto", 4,
                                       read_so_far, share);
    for (int i = 0; i < 3; i++) {
        free(files[i]);
    }
    return engine;
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: %s MODEL_FOLDER TEMPLATE [SEED]\n", argv[0]);
        return EXIT_FAILURE;
    }
    if (pgm_open("/no/such/folder", "flex", 4, NULL, NULL) != NULL) {
        return fail("a folder that is not there was opened");
    }
    fprintf(stderr, "as it should: %s\n", pgm_last_error());

    double share = 0;
    PgmEngine *engine = open_bytes(argv[1], &share);
    if (engine == NULL) {
        return fail("cannot open the model");
    }
    printf("read: %.0f %%\n", 100 * share);
    PgmRequest request = pgm_request_default();
    request.template_ = argv[2];
    request.seed = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
    request.steps = 8;
    request.n = 2;
    size_t decoded = 0;
    PgmTask *task = pgm_start(engine, &request, told, &decoded);
    if (task == NULL || pgm_wait(task) != 0) {
        return fail("cannot fill the text");
    }
    for (size_t index = 0; index < request.n; index++) {
        printf("%s\n", pgm_text(task, index));
    }
    pgm_task_free(task);

    /* A space or a line's end ends each blank; the first comes soon. */
    const char *stops[] = {" ", "\n"};
    request.prompt = "To be";
    request.template_ = NULL;
    request.length = 64;
    request.stops = stops;
    request.n_stops = 2;
    task = pgm_start(engine, &request, NULL, NULL);
    if (task == NULL || pgm_wait(task) != 0) {
        return fail("cannot continue the text");
    }
    const char *word = pgm_text(task, 0) + strlen(request.prompt);
    int stopped = pgm_finish(task, 0) == PGM_FINISH_STOP && strpbrk(word, " \n") == NULL;
    printf("stopped: %s\n", stopped ? "yes" : "no");
    pgm_task_free(task);

    request.n_stops = 0;
    task = pgm_start(engine, &request, cancels, NULL);
    if (task == NULL || pgm_wait(task) != 0) {
        return fail("cannot cancel");
    }
    int cancelled = pgm_finish(task, 0) == PGM_FINISH_CANCELLED;
    printf("cancelled: %s\n", cancelled ? "yes" : "no");
    pgm_task_free(task);
    pgm_close(engine);
    return stopped && cancelled && share == 1 ? EXIT_SUCCESS : EXIT_FAILURE;
}
