/* Fills in blanks from C: infill MODEL_FOLDER 'Text with {12} blanks' [SEED]. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgm.h"

/* Counts of a task's tokens. */
typedef struct Counts {
    size_t decoded;
    size_t forgotten;
    size_t wrong; /* finished texts with open tokens, and decoded tokens without a text */
} Counts;

/* Prints the text after a step: what the step decoded in brackets, an open token as a low line. */
static size_t print_text(const PgmStep *step) {
    size_t n_open = 0;
    for (size_t i = 0; i < step->n_segments; i++) {
        const PgmSegment *segment = &step->segments[i];
        n_open += segment->n_open;
        for (size_t open = 0; open < segment->n_open; open++) {
            fputc('_', stderr);
        }
        fprintf(stderr, segment->kind == PGM_SEGMENT_KIND_NEW ? "[%s]" : "%s", segment->text);
    }
    fputc('\n', stderr);
    return n_open;
}

static int count(const PgmStep *step, void *user) {
    Counts *counts = user;
    counts->decoded += step->n_decoded;
    counts->forgotten += step->n_forgotten;
    for (size_t i = 0; i < step->n_forgotten; i++) {
        if (step->forgotten[i] == 0) {
            return 1; /* BOS is given and stays */
        }
    }
    fprintf(stderr, "sample %zu, step %zu of %zu: ", step->index, step->step, step->n_steps);
    size_t n_open = print_text(step);
    counts->wrong += step->step == step->n_steps && n_open > 0;
    for (size_t i = 0; i < step->n_decoded; i++) {
        counts->wrong += step->texts[i] == NULL;
    }
    return 0; /* any other value cancels */
}

static int cancel_after_two(const PgmStep *step, void *user) {
    (void)user;
    return step->step >= 2;
}

static void *cancel_task(void *task) {
    pgm_cancel(task);
    return NULL;
}

static void save_share(double share, void *user) {
    *(double *)user = share;
}

static int fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, pgm_last_error());
    return EXIT_FAILURE;
}

/* The contents of a file in a folder, or NULL. */
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

/* Opens a model from memory, as an application does that has its model built in. */
static PgmEngine *open_bytes(const char *folder, double *share) {
    const char *names[] = {"config.json", "model.safetensors", "tokenizer.json"};
    uint8_t *files[3];
    size_t lengths[3] = {0, 0, 0};
    for (int i = 0; i < 3; i++) {
        files[i] = contents(folder, names[i], &lengths[i]);
    }
    PgmEngine *engine = pgm_open_bytes(files[0], lengths[0], files[1], lengths[1], files[2], lengths[2], "auto", 4,
                                       save_share, share);
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
        return fail("a folder that does not exist was opened");
    }
    fprintf(stderr, "an expected error: %s\n", pgm_last_error());

    double share = 0;
    PgmEngine *engine = open_bytes(argv[1], &share);
    if (engine == NULL) {
        return fail("cannot open the model");
    }
    printf("read: %.0f %%\n", 100 * share);
    PgmRequest request;
    if (pgm_request_init(&request, sizeof request) != 0) {
        return fail("the header and the library do not fit");
    }
    request.template_ = argv[2];
    request.seed = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
    request.steps = 8;
    request.n = 2;
    Counts counts = {0, 0, 0};
    PgmTask *task = pgm_start(engine, &request, count, &counts);
    if (task == NULL || pgm_wait(task) != 0) {
        return fail("cannot fill the text");
    }
    for (size_t index = 0; index < request.n; index++) {
        printf("%s\n", pgm_text(task, index));
    }
    pgm_task_free(task);

    /* Each token is encoded once, then all of them in one of four steps: as many tokens as without it. */
    int kept = 1;
    const int64_t refreshes[] = {-1, 4};
    for (size_t i = 0; i < 2; i++) {
        Counts once = {0, 0, 0};
        request.refresh = refreshes[i];
        task = pgm_start(engine, &request, count, &once);
        if (task == NULL || pgm_wait(task) != 0) {
            return fail("cannot fill the text with kept encodings");
        }
        kept = kept && once.decoded == counts.decoded && once.wrong == 0;
        pgm_task_free(task);
    }
    request.refresh = -2;
    kept = kept && pgm_start(engine, &request, NULL, NULL) == NULL;
    fprintf(stderr, "an expected error: %s\n", pgm_last_error());
    request.refresh = 0;
    printf("kept encodings: %s\n", kept ? "yes" : "no");

    /* A request of another size was made for another version. */
    request.size -= 1;
    int refused = pgm_start(engine, &request, NULL, NULL) == NULL;
    request.size += 1;
    printf("another version refused: %s\n", refused ? "yes" : "no");

    /* This order masks decoded tokens again. In the end as many are decoded as without it. */
    Counts remasked = {0, 0, 0};
    request.order = "remask";
    request.remask_rate = 0.2;
    request.steps = 64;
    task = pgm_start(engine, &request, count, &remasked);
    if (task == NULL || pgm_wait(task) != 0) {
        return fail("cannot fill the text in the order remask");
    }
    int forgot = remasked.forgotten > 0 && remasked.decoded - remasked.forgotten == counts.decoded;
    forgot = forgot && counts.wrong == 0 && remasked.wrong == 0;
    printf("masked again: %s\n", forgot ? "yes" : "no");
    pgm_task_free(task);

    /* A setting of another order is refused. */
    request.entropy_bound = 0.1;
    refused = refused && pgm_start(engine, &request, NULL, NULL) == NULL;
    fprintf(stderr, "an expected error: %s\n", pgm_last_error());
    request.entropy_bound = -1;

    /* One thread waits, another cancels. */
    request.steps = 1000000;
    task = pgm_start(engine, &request, NULL, NULL);
    pthread_t thread;
    if (task == NULL || pthread_create(&thread, NULL, cancel_task, task) != 0) {
        return fail("cannot start a thread");
    }
    int cancelled = pgm_wait(task) == 0 && pgm_finish(task, 1) == PGM_FINISH_CANCELLED;
    pthread_join(thread, NULL);
    pgm_task_free(task);

    /* A space or a line break ends the text; one comes soon. */
    const char *stops[] = {" ", "\n"};
    request.order = NULL;
    request.remask_rate = -1;
    request.steps = 8;
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
    task = pgm_start(engine, &request, cancel_after_two, NULL);
    if (task == NULL || pgm_wait(task) != 0) {
        return fail("cannot cancel");
    }
    cancelled = cancelled && pgm_finish(task, 0) == PGM_FINISH_CANCELLED;
    printf("cancelled: %s\n", cancelled ? "yes" : "no");
    pgm_task_free(task);
    pgm_close(engine);
    return refused && kept && forgot && stopped && cancelled && share == 1 ? EXIT_SUCCESS : EXIT_FAILURE;
}
