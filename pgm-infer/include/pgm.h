/* Partition Generative Models. Made by cbindgen from src/capi.rs; see there for what each call asks for. */

#ifndef PGM_H
#define PGM_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

// Why a sample ended.
typedef enum PgmFinish {
  // Every token is decoded.
  PGM_FINISH_COMPLETE = 0,
  // A stop string or an EOS ended it.
  PGM_FINISH_STOP = 1,
  // It was cancelled; the text is what there was.
  PGM_FINISH_CANCELLED = 2,
  // Its time was over; the text is what there was.
  PGM_FINISH_TIMEOUT = 3,
  // It went wrong; there is no text.
  PGM_FINISH_FAILED = 4,
} PgmFinish;

// A model on a thread of its own.
typedef struct PgmEngine PgmEngine;

// A task that was handed over.
typedef struct PgmTask PgmTask;

// Hears what share of a model is read, from 0 to 1.
typedef void (*PgmProgress)(double share, void *user);

// What is asked for. Start from `pgm_request_default`.
typedef struct PgmRequest {
  // Text with blanks: `{12}` is 12 tokens, `{*}` as many as there is room for, `___` is 8. Null: see `prompt`.
  const char *template_;
  // Text to continue, where there is no template. Null: the model writes freely.
  const char *prompt;
  // Tokens in all, BOS included; 0 is the template's length, else the model's.
  size_t length;
  // Sampling steps; 0 is the model's default.
  size_t steps;
  // Which positions a step decodes, by name. Null is "uniform".
  const char *order;
  // Divides the logits; negative is the model's default.
  double temperature;
  // Keeps the most probable tokens that hold this probability together; 0 is the model's default.
  double top_p;
  // Keeps the k most probable tokens; 0 is the model's default.
  size_t top_k;
  // Texts at which each blank ends; the first that comes ends it.
  const char *const *stops;
  // How many.
  size_t n_stops;
  // Seed of the first sample; sample i uses seed + i.
  uint64_t seed;
  // Samples; 0 is 1.
  size_t n;
  // Milliseconds that it may take; 0 is for ever.
  uint64_t timeout_ms;
} PgmRequest;

// A step of a sample.
typedef struct PgmStep {
  // Which of the task's samples.
  size_t index;
  // Steps done.
  size_t step;
  // Steps in all.
  size_t n_steps;
  // Tokens that the step decoded.
  size_t n_decoded;
  // Their positions.
  const size_t *positions;
  // The tokens.
  const uint32_t *tokens;
} PgmStep;

// Hears each step on the engine's thread; what it is handed is valid during the call. Non-zero cancels the task. It must not
// throw or jump out, and neither wait for a task, free one nor close an engine; `pgm_cancel` is fine.
typedef int32_t (*PgmCallback)(const struct PgmStep *step, void *user);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Why the last call of this thread failed; valid until its next call. Never null.
const char *pgm_last_error(void);

// Opens a model folder on a device ("auto", "flex", "vulkan:0", ..). Null on failure.
//
// # Safety
// The texts end in NUL; `user` is what `progress` expects.
struct PgmEngine *pgm_open(const char *folder,
                           const char *device,
                           size_t max_batch,
                           PgmProgress progress,
                           void *user);

// As `pgm_open`, from the contents of `config.json`, `model.safetensors` and `tokenizer.json`, which are not needed any
// more when it returns.
//
// # Safety
// Each pointer is followed by as many bytes as its length says; `device` ends in NUL; `user` is what `progress` expects.
struct PgmEngine *pgm_open_bytes(const uint8_t *config,
                                 size_t config_length,
                                 const uint8_t *weights,
                                 size_t weights_length,
                                 const uint8_t *tokenizer,
                                 size_t tokenizer_length,
                                 const char *device,
                                 size_t max_batch,
                                 PgmProgress progress,
                                 void *user);

// Ends an engine and returns its memory; tasks that are not done are cancelled. Null is ignored.
//
// # Safety
// `engine` came from `pgm_open` or `pgm_open_bytes` and is not used any more.
void pgm_close(struct PgmEngine *engine);

// A request for one sample with the model's defaults.
struct PgmRequest pgm_request_default(void);

// Hands a request over and returns at once; `callback` (or null) hears its steps. Null on failure.
//
// # Safety
// `engine` is open, the request's texts are null or end in NUL, `stops` are as many as it says, and `user` may be used on
// another thread until the task has ended.
struct PgmTask *pgm_start(const struct PgmEngine *engine,
                          const struct PgmRequest *request,
                          PgmCallback callback,
                          void *user);

// Waits until a task has ended. 0, or -1 when a sample failed; the others have their texts all the same.
//
// # Safety
// `task` came from `pgm_start` and is not used by another thread meanwhile, but for `pgm_cancel`.
int32_t pgm_wait(struct PgmTask *task);

// The text of a sample after `pgm_wait`, valid until the task is freed; null if there is none.
//
// # Safety
// `task` came from `pgm_start`.
const char *pgm_text(const struct PgmTask *task, size_t index);

// Why a sample ended, after `pgm_wait`; `PGM_FINISH_FAILED` if there is no such sample.
//
// # Safety
// `task` came from `pgm_start`.
enum PgmFinish pgm_finish(const struct PgmTask *task, size_t index);

// Ends a task before its next step; any thread may call it while the task is not freed.
//
// # Safety
// `task` came from `pgm_start`.
void pgm_cancel(const struct PgmTask *task);

// Frees a task, which is cancelled if it has not ended. Null is ignored.
//
// # Safety
// `task` came from `pgm_start` and is not used any more.
void pgm_task_free(struct PgmTask *task);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* PGM_H */
