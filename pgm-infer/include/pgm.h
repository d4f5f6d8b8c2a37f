/* Partition Generative Models. Made by cbindgen from src/capi; see there for the requirements of each call. */

#ifndef PGM_H
#define PGM_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

// What a stretch of a text is.
typedef enum PgmSegmentKind {
  // Given from the start.
  PGM_SEGMENT_KIND_GIVEN = 0,
  // Decoded by an earlier step.
  PGM_SEGMENT_KIND_DECODED = 1,
  // Decoded by this step.
  PGM_SEGMENT_KIND_NEW = 2,
  // Still open, or masked again.
  PGM_SEGMENT_KIND_OPEN = 3,
} PgmSegmentKind;

// Why a sample ended.
typedef enum PgmFinish {
  // Every token is decoded.
  PGM_FINISH_COMPLETE = 0,
  // A stop text or an EOS ended it.
  PGM_FINISH_STOP = 1,
  // It was cancelled; the text has the tokens decoded so far.
  PGM_FINISH_CANCELLED = 2,
  // It took longer than its timeout; the text has the tokens decoded so far.
  PGM_FINISH_TIMEOUT = 3,
  // It failed; there is no text.
  PGM_FINISH_FAILED = 4,
} PgmFinish;

// A model that runs on a thread of its own.
typedef struct PgmEngine PgmEngine;

// A task of an engine. Threads share it: one may cancel it while another waits.
typedef struct PgmTask PgmTask;

// Called while a model is read, with the share that has been read, from 0 to 1.
typedef void (*PgmProgress)(double share, void *user);

// What to generate. `pgm_request_init` fills in the defaults.
typedef struct PgmRequest {
  // The size of this struct where the caller was compiled; `pgm_request_init` sets it. Later versions add fields at the
  // end.
  size_t size;
  // Text with blanks: `{12}` is 12 tokens, `{*}` as many as fit, `___` is 8. Null: see `prompt`.
  const char *template_;
  // Text to continue if there is no template. Null: the model writes freely.
  const char *prompt;
  // Tokens of the text, BOS included; 0 is the template's length, else the model's.
  size_t length;
  // Sampling steps; 0 is the model's default.
  size_t steps;
  // The name of an order: which positions a step decodes. Null is the model's.
  const char *order;
  // Divides the logits; negative is the model's default.
  double temperature;
  // Keep the fewest most probable tokens whose probabilities add up to this; 0 is the model's default.
  double top_p;
  // Keep the k most probable tokens; 0 is the model's default.
  size_t top_k;
  // Texts that end a blank; the first one found ends it.
  const char *const *stops;
  // Number of stop texts.
  size_t n_stops;
  // Seed of the first sample; sample i uses seed + i.
  uint64_t seed;
  // Number of samples; 0 is 1.
  size_t n;
  // The most milliseconds that the task may take; 0 is no limit.
  uint64_t timeout_ms;
  // How many open positions the orders "confidence", "margin", "entropy" and "entropy-bounded" consider; 0 is all.
  size_t candidates;
  // Nats of entropy that a step of "entropy-bounded" decodes at once; negative is 0.5.
  double entropy_bound;
  // Probability at which "remask" masks a decoded token again before a step; negative is 0.05.
  double remask_rate;
  // In one of how many network evaluations a partition model encodes the decoded tokens anew; -1 is in the first only, 0 is
  // the model's default.
  int64_t refresh;
} PgmRequest;

// A stretch of a text.
typedef struct PgmSegment {
  // What it is.
  enum PgmSegmentKind kind;
  // Its text; empty for an open one.
  const char *text;
  // Number of open tokens; 0 for any other.
  size_t n_open;
} PgmSegment;

// A step of a sample. Later versions add fields at the end.
typedef struct PgmStep {
  // The sample's number within the task.
  size_t index;
  // Steps done.
  size_t step;
  // Steps in all; some orders need fewer.
  size_t n_steps;
  // Number of tokens that the step decoded.
  size_t n_decoded;
  // Their positions.
  const size_t *positions;
  // The tokens.
  const uint32_t *tokens;
  // Number of positions that the step masked again before it decoded; only the order "remask" does.
  size_t n_forgotten;
  // These positions.
  const size_t *forgotten;
  // The text of each decoded token by itself. Bytes that are no whole character show as U+FFFD; see `segments`.
  const char *const *texts;
  // Number of stretches of the text.
  size_t n_segments;
  // The whole text after the step, in stretches.
  const struct PgmSegment *segments;
} PgmStep;

// Called on the engine's thread after each step; `step` is valid during the call. A value other than 0 cancels the task. The
// callback must return normally (no exception, no longjmp). It must not wait for a task, free one or close an engine; it may
// call `pgm_cancel`.
typedef int32_t (*PgmCallback)(const struct PgmStep *step, void *user);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Why the last failed call of this thread failed. Valid until the thread's next call; never null.
const char *pgm_last_error(void);

// Opens a model folder on a device ("auto", "flex", "vulkan:0", ..). `max_batch` samples are computed together. Null on failure.
//
// # Safety
// `folder` and `device` are null or end in NUL; `progress` may be called with `user`.
struct PgmEngine *pgm_open(const char *folder,
                           const char *device,
                           size_t max_batch,
                           PgmProgress progress,
                           void *user);

// As `pgm_open`, from the contents of `config.json`, `model.safetensors` and `tokenizer.json`. The buffers may be freed when
// the call returns.
//
// # Safety
// Each buffer is null or has as many bytes as its length; `device` is null or ends in NUL; `progress` may be called with `user`.
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

// Closes an engine and frees its memory; tasks that have not ended are cancelled. Null is ignored.
//
// # Safety
// `engine` came from `pgm_open` or `pgm_open_bytes`; no thread uses it during this call or later.
void pgm_close(struct PgmEngine *engine);

// Starts a task and returns at once; `callback` (or null) is called after each step. Null on failure.
//
// # Safety
// `engine` is null or open. `request` is null or was set up by `pgm_request_init`; its texts are null or end in NUL, and
// `stops` has `n_stops` of them. They may be freed when the call returns. `user` may be used on the engine's thread until the
// task has ended.
struct PgmTask *pgm_start(const struct PgmEngine *engine,
                          const struct PgmRequest *request,
                          PgmCallback callback,
                          void *user);

// Waits until a task has ended. 0, or -1 when a sample failed; the other samples have their texts all the same. Several threads
// may wait, and another may cancel meanwhile.
//
// # Safety
// `task` is null or came from `pgm_start`, and is not freed during the call.
int32_t pgm_wait(const struct PgmTask *task);

// The text of a sample after `pgm_wait`. Valid until the task is freed; null if there is none.
//
// # Safety
// `task` is null or came from `pgm_start`, and is not freed during the call.
const char *pgm_text(const struct PgmTask *task, size_t index);

// Why a sample ended, after `pgm_wait`. `PGM_FINISH_FAILED` if there is no such sample.
//
// # Safety
// `task` is null or came from `pgm_start`, and is not freed during the call.
enum PgmFinish pgm_finish(const struct PgmTask *task, size_t index);

// Ends a task before its next step. Any thread may call it, also while another waits for the task. Null is ignored.
//
// # Safety
// `task` is null or came from `pgm_start`, and is not freed during the call.
void pgm_cancel(const struct PgmTask *task);

// Frees a task. If it has not ended it is cancelled, and the call returns after its last callback. Null is ignored.
//
// # Safety
// `task` came from `pgm_start`; no thread uses it during this call or later.
void pgm_task_free(struct PgmTask *task);

// Sets a request to one sample with the model's defaults. `size` is `sizeof(PgmRequest)`. 0, or -1 when this library does not
// know a struct of that size.
//
// # Safety
// `request` is null or has `size` bytes.
int32_t pgm_request_init(struct PgmRequest *request,
                         size_t size);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* PGM_H */
