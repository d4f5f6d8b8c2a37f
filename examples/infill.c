/* Fills in blanks from C: infill MODEL_FOLDER 'Text with {12} blanks' [SEED]. */
#include <stdio.h>
#include <stdlib.h>

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

static int fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, pgm_last_error());
    return EXIT_FAILURE;
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

    PgmEngine *engine = pgm_open(argv[1], "auto", 4, NULL, NULL);
    if (engine == NULL) {
        return fail("cannot open the model");
    }
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

    task = pgm_start(engine, &request, cancels, NULL);
    if (task == NULL || pgm_wait(task) != 0) {
        return fail("cannot cancel");
    }
    printf("cancelled: %s\n", pgm_finish(task, 0) == PGM_FINISH_CANCELLED ? "yes" : "no");
    pgm_task_free(task);
    pgm_close(engine);
    return EXIT_SUCCESS;
}
