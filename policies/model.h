// Inside of a Policy, for this room only: parameters, the buffers of a pass, and the pages of keys and values.
#ifndef RECKON_MODEL_H
#define RECKON_MODEL_H
#include "family.h"
#include "lora_files.h"
#include "device.h"
#include "policy.h"
#include "weights.h"

// Several tensors of a checkpoint may lie in one matrix, row block after row block (q, k, v; gate, up).
typedef struct ParameterPart {
    char name[128]; // Hugging Face's
    int64_t row, rows;
} ParameterPart;

// A part whose rows are kept in the blocks of its file.
typedef struct KeptPart {
    WeightFormat format;
    size_t at; // bytes into `packed`
    int64_t interleaved; // within the file: MatmulArgs'
} KeptPart;

typedef struct Parameter {
    ParameterPart *parts; // [part_count]
    int part_count;
    TensorRole role;
    int32_t layer;     // -1: of the whole model
    int64_t N, K;      // a vector has K = 1
    int64_t block[2];  // packed as so many matrices of these rows by turns, one behind the other (experts, heads); 0: as one
    bool matrix;       // packed, decayed by AdamW; vectors are used as they are
    bool transposable; // the backward pass multiplies by it
    bool trained;      // has masters, gradients and moments
    bool second_gradient; // gradient2 too
    bool fresh;        // its gradient is zero, whatever lies there: nothing was added since gradients were zeroed (gradients.c)
    bool fused;        // a factor of all experts as one parameter: one tensor in files, experts by turns (lora_files.c)
    int32_t rank;      // of a factor; the rest is padding
    float scale;       // of the packed form, 0: 1; gradients are those of the packed form, times this
    bool sampled_int8; // has a copy in 8 bits
    float *values;     // [N, K] fp32: masters, and vectors of any policy; NULL for frozen matrices
    void *packed, *transposed; // transposed: NULL where products turn what is packed
    void *int8;        // WEIGHT_INT8, or NULL
    KeptPart *kept;    // [part_count] where `packed` holds blocks, else NULL; such a matrix is frozen
    size_t kept_bytes; // of `packed` then
    bool in_file;      // `packed` lies within Policy.file
    float *gradient;   // [N, K]
    float *gradient2;  // [N, K] second part, so that two sums each have an order of their own: an adapter's on kv_b
    float *m, *v;      // AdamW's moments
} Parameter;

static inline int64_t block_rows(const Parameter *q, int i) { return q->block[0] ? q->block[i % 2] : q->N; }
static inline int block_count(const Parameter *q) { return q->block[0] ? (int)(2 * q->N / (q->block[0] + q->block[1])) : 1; }
// Where block i begins: its row of `values` and `gradient`, its element of `packed` and of `transposed`. Block block_count()
// begins where the last one ends.
static inline int64_t block_row(const Parameter *q, int i) { return i / 2 * (block_rows(q, 0) + block_rows(q, 1)) + i % 2 * block_rows(q, 0); }
static inline int64_t block_packed(const Parameter *q, int i) {
    int64_t first = packed_elements(block_rows(q, 0), q->K), second = packed_elements(block_rows(q, 1), q->K);
    return i / 2 * (first + second) + i % 2 * first;
}
static inline int64_t block_transposed(const Parameter *q, int i) {
    int64_t first = packed_elements(q->K, block_rows(q, 0)), second = packed_elements(q->K, block_rows(q, 1));
    return i / 2 * (first + second) + i % 2 * first;
}
static inline int64_t packed_size(const Parameter *q) { return block_packed(q, block_count(q)); }
static inline int64_t transposed_size(const Parameter *q) { return block_transposed(q, block_count(q)); }

// y = x W^T + b. Every product of a layer with a weight goes through linear_forward and linear_backward.
typedef struct Linear {
    Parameter *weight, *bias; // bias may be NULL
} Linear;

// Low-rank adapters (Hu et al. 2021): y += s B A x for the parts of a weight that are targets. The A of all of them lie in one
// matrix, so that x is read once: u = A x, then each part takes its columns of u. Ranks are padded to a multiple of
// LORA_STEP by rows of A and columns of B that are zero and stay zero. Of experts each has an A and B's of its own, one behind
// the other as their matrices are; factors of an expert that is no target are zero and stay zero. Where all experts are one
// parameter (PEFT's target_parameters), gate and up share a factor A.
enum { LORA_STEP = 8 };
typedef struct LoraPart {
    Parameter *B;      // [rows, padded rank], packed with the scale; of experts [E rows, padded rank]
    int64_t row, rows; // of the weight, of one expert's
    int64_t column;    // its own in u
    char module[96];   // "model.layers.0.self_attn.q_proj"; empty where all experts are one parameter
} LoraPart;
typedef struct LoraLinear {
    Parameter *A; // [part_count * padded rank, K]; of experts [E part_count * padded rank, K]
    LoraPart *parts;
    int part_count;
} LoraLinear;
typedef struct Adapter {
    LoraConfig config;
    Parameter *parameters;  // [count]
    int count;
    ParameterPart *names;   // [name_count]
    LoraPart *parts;        // [part_count]
    int name_count, part_count;
    LoraLinear *linears;    // [linear_count]
    int linear_count;
    LoraLinear **of;        // [parameters of the policy], NULL where it isn't a target
} Adapter;

// What a layer is made of; a family's layers lack what is NULL.
typedef struct Layer {
    Parameter *attention_norm, *attention_post_norm; // of the block's input, of its output
    Linear qkv, output;
    Parameter *q_norm, *k_norm;
    Parameter *ffn_norm, *ffn_post_norm;
    Linear gate_up, down;
    Linear q_a, q, kv_a, kv_b; // of latent attention; q_a may be missing
    Parameter *q_a_norm, *kv_a_norm;
    Linear router, experts_gate_up, experts_down, shared_gate_up, shared_down; // in the place of gate_up and down
    Parameter *correction;
} Layer;

// Host arrays on their way to the device: added one by one, sent in one copy, which sets the pointers that operations
// read. On a device whose memory is the host's they are the arrays themselves, which must therefore stay.
enum { STAGE_ARRAYS = 24 };
typedef struct Stage {
    struct {
        const void *host;
        size_t bytes;
        const void **view;
    } arrays[STAGE_ARRAYS];
    int count;
    char *host, *memory; // gathered; on the device
    size_t capacity;
} Stage;
#define STAGE_ADD(stage, source, elements, pointer)                                                          \
    stage_add((stage), (source), (size_t)(elements) * sizeof *(source), (const void **)(pointer))
void stage_add(Stage *s, const void *host, size_t bytes, const void **view);
bool stage_send(const Policy *p, Stage *s, Err *err) MUST_CHECK;
void stage_free(const Policy *p, Stage *s);

// Where the tokens of one pass stand: who they are, which pages they see and fill. One description serves decoding,
// prefill and training, which is what makes them the same numbers.
typedef struct Pass {
    int64_t T;
    const int32_t *tokens, *position;  // [T]
    const int32_t *angle;              // [T] rows of cos_sin where they aren't the positions; NULL: they are
    const int32_t *table_start, *table; // [T], page numbers
    const int64_t *slot_start, *slot;  // [T + 1]
    char *pages;                       // act; layer l begins at pages + l * layer_bytes
    size_t layer_bytes;
    int32_t max_position;              // host: of any row
    int32_t max_run;                   // host: rows in succession that share a table; decoding: 1
    bool retains;                      // activations go to the slots as keys and values do (retain.c)
    int64_t slots;                     // then: how many
    const int64_t *slot_row;           // [slots] which row is whose; NULL: one each, in their order
} Pass;

// Rows sorted by expert: `rows` at most, those of expert e from start[e * every] on.
typedef struct Sorted {
    int64_t rows;
    int32_t every;
    const int32_t *start;
} Sorted;

// What a pass needs for experts (moe.c), T tokens, k experts each. Of shared ones F is that of all together.
typedef struct ExpertsWork {
    float *logits, *weight;          // [T, E], [T, k]
    int32_t *choice, *place, *token; // [T, k], [T, k], [T k]
    int32_t *start;                  // [E + 1]
    void *x, *gate_up, *ff;          // act [T k, C], [T k, 2F], [T k, F]
    float *out;                      // [T k, C]
    void *shared_gate_up, *shared_ff; // act [T, 2F], [T, F]
} ExpertsWork;
typedef struct ExpertsKept {
    float *logits, *weight;
    int32_t *choice;
    void *gate_up, *shared_gate_up;
} ExpertsKept;
typedef struct ExpertsTraining {
    int64_t rows, starts;       // capacities
    int32_t *start;             // [E groups + 1]
    void *dy, *dgate_up;        // act [T k, C], [T k, 2F]
    float *dff, *dweight;       // [T k, F], [T, k]
    void *dlogits, *dshared;    // act [T, E], [T, 2F]
    float *dshared_ff;          // [T, F]
    int64_t *load;              // [layers][E] rows of each expert since it was taken
    float balance, z;           // of the batch that the forward pass kept
} ExpertsTraining;

// What a pass needs for latent attention (mla.c).
typedef struct LatentWork {
    float *q_a, *kv;            // [T, q_rank], [T, R + P]
    float *q_a_rstd, *kv_rstd;  // [T]
    void *q_a_normed, *latent;  // act [T, q_rank], [T, R]
    void *q_plain, *context;    // act [T, H N], [T, H R]
    void *scratch;              // latent_scratch() bytes
} LatentWork;
typedef struct LatentKept {
    float *q_a, *kv, *q_a_rstd, *kv_rstd;
    void *q_plain, *context;
} LatentKept;
typedef struct LatentTraining {
    float *dcontext, *dq_plain, *dlatent, *dq_a; // [T, H R], [T, H N], [T, R], [T, q_rank]
    void *dkv, *dq_a_act;                        // act [T, R + P], [T, q_rank]
} LatentTraining;

// What the backward pass needs of a layer.
typedef struct Kept {
    ExpertsKept experts;
    LatentKept latent;
    float *h_in, *h_mid; // [T, C] residual stream before attention and before the feed-forward
    float *rstd1, *rstd2;
    void *q, *attention, *gate_up; // act [T, HD], [T, HD], [T, 2F]
    float *lse;          // [T, H]
    float *qkv, *q_rstd, *k_rstd;  // before the norms of q and k: [T, (H + 2K) D], [T, H], [T, K] (one of all heads together: [T]); where there are any
    float *attention_out, *ffn_out, *post_rstd1, *post_rstd2; // [T, C] before the norms of outputs, [T]
} Kept;

// Its fields but those of experts and latent attention.
enum { KEPT_FIELDS = 15 };
typedef struct KeptField {
    void *at;     // of the pointer
    size_t bytes; // of a row; 0: this model has none
    bool again;   // one small product makes it from the others: a rollout doesn't keep it
} KeptField;
void kept_fields(const Policy *p, int layer, Kept *k, KeptField out[KEPT_FIELDS]);

typedef struct Workspace {
    ExpertsWork experts;
    LatentWork mla;
    int64_t rows;        // capacity
    float *h;            // [T, C] residual stream
    void *x;             // act [T, C] normed
    float *qkv;          // [T, (H + 2K) D]
    float *branch;       // [T, C] a block's output, where it is normed before it joins the stream
    void *q, *attention; // act [T, H D]
    void *gate_up, *ff;  // act [T, 2F], [T, F]
    float *rstd;
    void *final;         // act [T, C] after the last norm
    void *lora_u, *lora_du; // act [T, width of the adapter]
    float *lora_wide;    // [T, columns of the widest product] fp32, where a product is stored in bf16
    int64_t lora_rows, lora_width, lora_columns;
    void *int8_x;        // rows of products in 8 bits, where there are any
} Workspace;

// The arrays of a packed batch as operations read them.
typedef struct Staged {
    Pass pass;
    const int32_t *unit, *unit_heads, *unit_page, *page_first_row, *page_last_row;
    const int32_t *row, *target, *kept;
    const int64_t *kept_start;
    const float *inv_temperature;
    const int32_t *chunk_segments;
    const float *dlogprob, *dentropy; // of a distillation the first are the weights of divergences
    int64_t vocabulary; // ids that distributions are over
} Staged;

// What a rollout has kept of one sample.
typedef struct TokenRecord {
    float logprob, entropy, max, log_sum; // of the head; NaN of a token that was given
} TokenRecord;
typedef struct RetainedSample {
    int32_t prompt_length, total; // total 0: it has not ended
    int32_t *table;               // [pages] of its whole course
    int32_t *ids;                 // [prompt_length + total]
    TokenRecord *record;          // [total]
    float inv_temperature;
} RetainedSample;
// Activations of the latest rollout, where it kept them: those of layers in training.kept, by slots instead of rows.
typedef struct Retained {
    uint32_t version, last; // of what is held (0: nothing), and the latest given out
    int64_t slots;          // capacity of h_last and rstd_last
    float *h_last, *rstd_last;
    char *pages;            // keys and values, [layers][page_count], the last one for rows that nobody reads
    int32_t page_count;
    size_t page_bytes;      // capacity
    Arena arena;            // of samples
    RetainedSample *samples; // [sample_count]
    int32_t sample_count;
    // of the batch that is being trained
    int64_t *row_slot, *page_from;          // host [T], [pages]
    const int64_t *row_slots, *page_froms;  // as operations read them
    TokenRecord *records;                   // host [R]
    float *column;                          // host [R]
    int64_t row_capacity, page_capacity, target_capacity;
} Retained;

// Everything that a training pass holds, allocated for the largest batch so far.
typedef struct Training {
    ExpertsTraining experts;
    LatentTraining mla;
    int64_t rows, targets, pages, layer_pages, chunk_rows, kept_rows, again_rows, one_rows; // capacities
    Kept *kept;                   // [layers]
    Kept one;                     // of one layer, where activations are retained
    bool restored;                // the pass took its activations from the rollout
    float *h_last, *rstd_last;    // before the last norm
    char *page_memory;            // [layers][pages of the batch]; of one layer where they are restored
    float *dh, *dwide, *dq, *delta; // [T, C], [T, max width], [T, H D], [T, H]
    float *dqk;                   // [T, (H + K) D] before the norms of q and k, where there are any
    void *dact;                   // act [T, max width]
    float *dpages;
    float *logits;                // [HEAD_TOGETHER, V'] where the head and its gradient are made together
    int64_t logit_rows;           // of it
    void *head_x;                 // act [R, C]
    float *head_dx;               // [chunk, C]
    void *dlogits;                // act [chunk, V']
    float *logprob, *entropy, *max, *log_sum; // [R]
    float *divergence, *centre;   // [R] of a distillation
    VocabStats *stats;            // [R][V'/256]
    void *scratch;                // of matmul_grad
    float *inv_temperature_host;  // [R]
    int32_t *angle;               // host [T], or NULL: Pass.angle
    int32_t *target_segment;      // host [groups + 1]: targets of each group
    int32_t segment_capacity, chunk_capacity;
    struct HeadChunk *chunks;     // host
    int32_t *chunk_segments;      // host, the segments of chunk after chunk
    int chunk_count;
    Stage stage, coefficients;
    Staged staged;
} Training;
// Targets are walked in chunks of at most head_chunk; a group's own targets are cut at multiples of it from the group's
// first, so that where a gradient's chain is cut doesn't depend on the groups before. On a device chunks are long enough for its library's
// product (kernels/cuda/matmul_grad.cu), and for one pass over the fp32 gradient of the vocabulary to serve many targets.
// Where coefficients are known beforehand, the head is made together with its gradient, on the host HEAD_TOGETHER targets at a time, so that
// logits are multiplied out once only. A device multiplies twice: to write a logit, read it and write its gradient takes ten bytes, at an
// H100's 295 FLOP a byte as long as a product of depth 1,475.
enum { HEAD_CHUNK_HOST = 512, HEAD_CHUNK_DEVICE = 2048, HEAD_TOGETHER = 192 };
typedef struct HeadChunk {
    int32_t from, to;       // targets
    int32_t first, count;   // segments: chunk_segments[first .. first + count]
} HeadChunk;

// What lookups give to the gradient of an embedding that is the head too, not yet added to `gradient`: rows of those ids only
// that occurred since gradients were zeroed or read (gradients.c).
typedef struct Lookups {
    float *rows;          // [capacity, C]
    int64_t capacity;
    int32_t count;        // ids that have a row
    int32_t *row_of, *id; // host [V]: an id's row or -1; a row's id
    int32_t *token_row;   // host [T], of the batch of now
    int64_t token_capacity;
    Stage stage;
    const int32_t *staged_row, *staged_id; // [T], [count]
} Lookups;

static inline int32_t pages_for(int64_t tokens) { return (int32_t)((tokens + PAGE - 1) / PAGE); }
// Page tables of a packed batch.
typedef struct Paging {
    int32_t *position, *table_start, *table;
    int64_t *slot_start, *slot;
    int32_t page_count;
    int64_t table_count, slot_count;
    int32_t *unit, *unit_page; // rows and pages of each group
    int32_t *unit_heads;       // rows times heads, where attention is latent
    int32_t *page_first_row, *page_last_row; // [pages] rows that see the page lie between, ends included
    int32_t max_position, max_run; // max_run: most rows in succession that share a table
    double context;            // sum over rows of the positions they see
    int32_t *own_page;         // of each copy of a group's last page
    char *memory;              // of all these arrays
    size_t capacity;
} Paging;

struct Policy {
    // Of a view: the policy whose weights and buffers it uses, with its own adapter in the place of that policy's.
    struct Policy *owner;
    Adapter **adapters;    // [adapter_count], on the weights below
    int adapter_count;
    Adapter *active;       // NULL: the weights alone
    Adapter *trained;      // the one that training changes; NULL: the weights
    bool keep_blocks;      // matrices stay in the blocks of their file
    bool has_int8;         // dense matrices have a copy in 8 bits
    bool in_int8;          // the passes of now multiply by it (scheduler.c)
    void *block_scratch;   // of products with blocks
    struct Together {      // where packed matrices lie one after the other; NULL: each by itself
        void *memory;
        size_t bytes;
    } together[2];         // the second: of those that were used within the file at first
    Weights *file;         // what matrices are used in until decoding begins (kept.c), or NULL
    void *turn_scratch;    // of products with the transpose of what is packed
    float *discard;        // where gradients of frozen vectors go that nobody reads
    char *base_path;       // what the adapter was made for
    char base_hash[65];    // of its files; empty: not known yet
    ModelConfig config;
    Tokenizer *tokenizer;
    Device *device; // may be shared with other policies
    Dtype dtype;
    bool trainable;
    Parameter *parameters;
    int parameter_count;
    ParameterPart *parts; // of all of them
    int part_count;
    Parameter *embedding, *final_norm, *head; // head == embedding where tied
    Layer *layers;
    float *cos_sin[2]; // [positions][2][R/2] by config_rope; R elements of a head are rotated
    int64_t cos_sin_positions;
    Workspace work;
    Training training;
    Lookups lookups;
    Retained retained;
    float *head_scratch;
    double *norm_partial, *norm_host; // of square_sum: on the device, on the host
    int64_t optimizer_steps;
    double flops;
    Paging paging; // of the batch that policy_forward kept
    int32_t *choices; // [layers][T][k] where a pass notes the experts that it chose, or NULL
};
// Numbers from row to row of dlogits. Rows a power of two of lines apart would meet in a few sets of the processor's caches.
static inline int64_t dlogits_stride(const Policy *p) {
    int64_t padded = vocab_padded(p->config.vocabulary);
    return p->device->is_host ? padded + 64 / (int64_t)dtype_size(p->dtype) : padded;
}

// One backward pass.
typedef struct Backward {
    Policy *p;
    Pass pass;
    Segments groups; // in tokens
    const Policy *teacher; // whose distributions are learned; NULL: coefficients of logprobs and entropies
    float beta;
    bool with_head; // which is still to be made, together with its gradient
} Backward;

// A training pass in its parts (training.c), which only queue operations; training_results waits.
HeadArgs training_head(const Policy *p, int64_t from, int64_t count);
bool training_forward(Policy *p, const Packed *batch, bool keep, Err *err) MUST_CHECK; // without the head
void training_logprobs(Policy *p, int64_t R);                                        // the head, where the rollout hasn't made it
bool training_backward(Backward *b, const Packed *batch, const float *dlogprob, const float *dentropy, Err *err) MUST_CHECK;
bool training_results(Policy *p, int64_t R, float *logprob, float *entropy, Err *err) MUST_CHECK;
// What `distill` and its gradient are given, of targets [from, from + count) (distill.c).
DistillArgs distill_args(const Policy *p, const Policy *teacher, float beta, int64_t from, int64_t count);

// Columns of queries as attention reads them, of what the first product of attention gives, and of what the last one reads.
static inline int64_t q_width(const ModelConfig *c) {
    return (int64_t)c->heads * (c->latent.R ? c->latent.R + c->latent.P : c->head_width);
}
static inline int64_t qkv_width(const ModelConfig *c) {
    return (int64_t)(c->latent.R ? c->heads : c->heads + 2 * c->kv_heads) * c->head_width;
}
static inline int64_t attention_width(const ModelConfig *c) { return (int64_t)c->heads * (c->latent.R ? c->latent.V : c->head_width); }
// Of a sequence in flight: records of what it draws, with room for so many ids of each kept set, in FETCHES rounds of ROUND_STEPS.
enum { ROUND_STEPS = 16, USUAL_KEPT = 256 };
static inline size_t record_bytes(int32_t kept_room) { return sizeof(DrawRecord) + (size_t)kept_room * 4; }
static inline size_t place_record_bytes(bool on_host, int32_t kept_room) { return (size_t)(on_host ? 1 : FETCHES * ROUND_STEPS) * record_bytes(kept_room); }
// Of a sequence in flight, beside its pages and logits: the head's statistics, the ids that it may draw, and the records.
static inline size_t place_bytes(const ModelConfig *c, bool on_host, bool truncates) {
    return (size_t)(vocab_padded(c->vocabulary) / VOCAB_BLOCK) * sizeof(VocabStats) + (truncates ? (size_t)c->vocabulary * 4 : 0) +
           place_record_bytes(on_host, truncates && !on_host ? USUAL_KEPT : 0);
}
// For how many rows, of one for each place, logits are stored. A device needs none where draws are from the whole vocabulary: each
// makes again the block that it reads (kernels/cuda/draw.cu). But for up to so many rows writing them takes no longer: 32 of 152k are 20 MB, some 6
// microseconds of an H100's memory, in which one of its multiprocessors reads a block's weights.
enum { STORED_ROWS = 32 };
static inline int64_t logit_rows(bool on_host, bool truncates, int64_t places) { return on_host || truncates || places < STORED_ROWS ? places : STORED_ROWS; }
static inline size_t logits_bytes(const ModelConfig *c, int64_t rows) { return (size_t)(rows * vocab_padded(c->vocabulary)) * 4; }
static inline int64_t cache_page_elements(const ModelConfig *c) {
    return c->latent.R ? latent_page_elements(c->latent.R + c->latent.P) : page_elements(c->kv_heads, c->head_width);
}
static inline size_t act_bytes(const Policy *p, int64_t elements) { return (size_t)elements * dtype_size(p->dtype); }
static inline int32_t head_chunk(const Policy *p) { return p->device->is_host ? HEAD_CHUNK_HOST : HEAD_CHUNK_DEVICE; }
static inline size_t page_bytes(const Policy *p) {
    return act_bytes(p, cache_page_elements(&p->config));
}

// Memory that is there from now on, not only where it is first written: what a run needs is known before its first step.
bool hold(const Device *d, size_t bytes, const char *what, void **out, Err *err) MUST_CHECK;
// Two bytes more than asked for: products of bf16 read pairs, beyond the last row by one where its width is odd.
#define RESERVE(pointer, bytes)                                                                              \
    do {                                                                                                     \
        void *fresh_;                                                                                        \
        p->device->release(p->device, pointer);                                                              \
        (pointer) = NULL;                                                                                    \
        TRY(hold(p->device, (size_t)(bytes) + 2, #pointer, &fresh_, err));                                   \
        (pointer) = fresh_;                                                                                  \
    } while (0)

// y [T, N] of x, act [T, K].
void linear_forward(const Policy *p, const Linear *l, int64_t T, const void *x, Store store, void *y);
// dx [T, K] is written or added to; the gradients of weight and bias grow by what dy, act [T, N], gives.
// `store` of dx: STORE_F32 or ADD_F32.
void linear_backward(const Backward *b, const Linear *l, const void *x, const void *dy, Store store, float *dx);
// The two halves of it, in this order: the second one uses what an adapter left of dy, so nothing of another product may come between.
void linear_input_gradient(const Backward *b, const Linear *l, const void *dy, Store store, float *dx);
void linear_weight_gradient(const Backward *b, const Linear *l, const void *x, const void *dy);

// Makes a product one with the transpose of w, which isn't kept in blocks.
void linear_back_by(const Policy *p, const Parameter *w, MatmulArgs *product);

// The list of parameters of p->config, and the layers' pointers to them; no memory for values. Without a device only
// policy_layout_free may follow.
bool policy_layout(Policy *p, Err *err) MUST_CHECK;
void policy_layout_free(Policy *p);
// A policy whose memory is asked for and never written: for plans, on a device that counts (plan.c). `w` may be NULL.
bool policy_outline(const ModelConfig *config, const Weights *w, const PolicyOptions *o, Policy **out, Err *err) MUST_CHECK;

// ---- weights in 8 bits (sampled.c) ----
// Which matrices have a copy; ERR_UNAVAILABLE on a device that can't multiply by it.
bool int8_choose(Policy *p, Err *err) MUST_CHECK;
bool int8_begin(Policy *p, const RolloutOptions *o, Err *err) MUST_CHECK;
// Of a row of the longest of them.
size_t int8_longest_row(const Policy *p);
// What passes of now multiply by: the copy where they are in 8 bits and there is one, what else is packed otherwise.
static inline bool in_int8(const Policy *p, const Parameter *q) { return p->in_int8 && q->int8; }

// ---- weights kept in blocks (kept.c) ----
WeightFormat stored_format(const char *type); // of a type's name in files; WEIGHT_PACKED: products don't read it
bool kept_can(const Policy *p, const Parameter *q, const Weights *w);
// Within the file itself: no memory of the policy's own is filled before the first pass.
bool kept_can_in_file(const Policy *p, const Parameter *q, const Weights *w);
void kept_in_file(Parameter *q, const Weights *w);
bool kept_alloc(const Policy *p, Parameter *q, const Weights *w, Err *err) MUST_CHECK;
bool kept_load(const Policy *p, Parameter *q, const Weights *w, Err *err) MUST_CHECK;
bool kept_get(const Policy *p, const Parameter *q, float *out, Err *err) MUST_CHECK; // [N, K] on the host
bool kept_hash(const Policy *p, const Parameter *q, char out[65], Err *err) MUST_CHECK; // of the same, never held whole
// How an operation reads a matrix that may be kept in blocks and is one part of its own: the embedding, the head.
static inline WeightFormat kept_format(const Parameter *q) { return q->kept ? q->kept[0].format : WEIGHT_PACKED; }
bool kept_scratch(Policy *p, Err *err) MUST_CHECK; // scratch of products, once all are loaded

// ---- adapters (lora.c, lora_files.c) ----
static inline const LoraLinear *lora_of(const Policy *p, const Linear *l) {
    return p->active ? p->active->of[l->weight - p->parameters] : NULL;
}
// All experts of a layer as one parameter: its name as newer releases of transformers have it, and the module that holds it; false of
// what isn't an expert's.
bool lora_fused_name(const Parameter *q, char parameter[128], char module[128]);
// Which factors there are and their shapes and names, without memory for them; needs no device.
bool adapter_layout(const Policy *p, const LoraConfig *config, bool trained, const char *where, Adapter **out, Err *err) MUST_CHECK;
// A zeroed adapter for the policy's weights; takes over nothing of `config`. ERR_DATA where a target doesn't name a product.
bool adapter_make(const Policy *p, const LoraConfig *config, bool trained, const char *where, Adapter **out, Err *err) MUST_CHECK;
void adapter_free(const Policy *p, Adapter *a);
// A as PEFT draws it, uniform within 1 / sqrt(K), B zero: the adapter changes nothing yet.
bool adapter_start(const Policy *p, Adapter *a, uint64_t seed, Err *err) MUST_CHECK;
bool adapter_read(const Policy *p, const char *folder, bool trained, Adapter **out, Err *err) MUST_CHECK;
// Each parameter's values [N, K] of a file of factors, padding zero, for as long as `take` runs; afterwards every tensor of the file
// has had its place.
bool adapter_tensors(const Adapter *a, const char *path, bool (*take)(void *context, int index, const float *values, Err *err), void *context,
                     Err *err) MUST_CHECK;
// Sets config->routers by what the file of factors holds.
bool adapter_find_routers(LoraConfig *config, const char *path, Err *err) MUST_CHECK;
// Only an adapter that is trained: packed forms are rounded and scaled.
bool adapter_write(const Policy *p, const Adapter *a, const char *folder, Err *err) MUST_CHECK;
bool adapter_copy(const Policy *p, const Adapter *from, Adapter **out, Err *err) MUST_CHECK;
bool adapter_reserve(Policy *p, int64_t rows, Err *err) MUST_CHECK;
// Appends an adapter to the policy, which owns it then.
void adapter_add(Policy *p, Adapter *a);

// What training changes, one after the other, from 0; NULL beyond the last.
Parameter *trained_parameter(const Policy *p, int index);
// load.c: all weights of a model's files, and its tokenizer.
bool policy_load(Policy *p, const char *path, const Weights *w, Err *err) MUST_CHECK;
// Packs what was used within the file, and closes it; after a failure the policy is only good for policy_close.
bool policy_leave_file(Policy *p, Err *err) MUST_CHECK;
bool parameter_alloc(const Policy *p, Parameter *q, Err *err) MUST_CHECK;
void parameter_free(const Policy *p, Parameter *q);
void parameter_pack(const Policy *p, const Parameter *q, const float *values); // [N, K] on the device
bool parameter_set(const Policy *p, const Parameter *q, const float *host, Err *err) MUST_CHECK;
bool parameter_get(const Policy *p, const Parameter *q, float *host, Err *err) MUST_CHECK; // [N, K], unscaled where it has masters

// The same with a matrix an expert, over sorted rows. The two halves of the way back come by themselves: dx is written first, and
// the gradients of weights then use what an adapter left of dy; nothing of another product may come between.
void experts_product(const Policy *p, const Linear *l, const Sorted *s, const void *x, Store store, void *y);
void experts_input_gradient(const Backward *b, const Linear *l, const Sorted *s, const void *dy, float *dx);
void experts_weight_gradient(const Backward *b, const Linear *l, const Sorted *s, const void *x, const void *dy);

// transformer.c: what a block reads of the stream h [T, C], act, normed by `weight` where there is one; and from the gradient dy of
// such a normed row into the stream's.
void block_input(const Policy *p, int64_t T, const Parameter *weight, const float *h, void *y, float *rstd);
void norm_gradient(const Backward *b, Parameter *weight, const float *x, const float *rstd, const float *dy);
// What of a layer's activations is made again of the others: the stream after attention, and what attention's last product gave.
void attention_output(Policy *p, int64_t T, int layer, const Kept *k);

// moe.c: the experts of a layer in the place of its feed-forward. Forward reads work.x and adds to work.h; backward takes the gradient
// of what they gave from training.dact, reads the normed input from work.x, and leaves its gradient in training.dwide.
void experts_forward(Policy *p, int64_t T, int layer, const Kept *kept);
void experts_backward(const Backward *b, int layer);
bool experts_reserve(Policy *p, int64_t rows, Err *err) MUST_CHECK;
bool experts_keep(Policy *p, ExpertsKept *k, int layer, int64_t rows, Err *err) MUST_CHECK;
bool experts_train(Policy *p, int64_t rows, int groups, Err *err) MUST_CHECK;
void experts_free(Policy *p);

// mla.c: latent attention in the place of the ordinary kind, without the output product. Forward reads work.x and leaves [T, H V] in
// `y`; backward takes the gradient of that from training.dact, reads the normed input from work.x, and leaves its gradient in
// training.dwide.
void latent_forward(Policy *p, const Pass *pass, int layer, const Kept *kept, void *y);
void latent_backward(const Backward *b, int layer);
bool latent_reserve(Policy *p, int64_t rows, Err *err) MUST_CHECK;
bool latent_keep(Policy *p, LatentKept *k, int64_t rows, Err *err) MUST_CHECK;
bool latent_train(Policy *p, int64_t rows, Err *err) MUST_CHECK;
void latent_free(Policy *p);

// Runs the layers; leaves the normed hidden states in work.final. With `kept`, what the backward pass needs is kept
// there and in training.h_last, rstd_last. Room for the rows and positions must have been reserved: this only queues
// operations.
void transformer_forward(Policy *p, const Pass *pass, Kept *kept);
// All gradients but the head's, from training.dwide [T, C], the gradient of the normed hidden states.
void transformer_backward(const Backward *b);
bool workspace_reserve(Policy *p, int64_t rows, Err *err) MUST_CHECK;
void workspace_free(Policy *p);
// What activations of a pass are for: nothing, the way back, or they come from the rollout.
typedef enum Activations { ACTIVATIONS_DROPPED, ACTIVATIONS_KEPT, ACTIVATIONS_RESTORED } Activations;
bool training_reserve(Policy *p, const Packed *b, int64_t pages, Activations activations, Err *err) MUST_CHECK;
// Of training.kept; with `again` also what a rollout doesn't keep. And of training.one.
bool activations_reserve(Policy *p, int64_t rows, bool again, Err *err) MUST_CHECK;
bool logits_reserve(Policy *p, int64_t targets, Err *err) MUST_CHECK; // where head and gradient are made together
bool activations_reserve_one(Policy *p, int64_t rows, Err *err) MUST_CHECK;
void training_free(Policy *p);

// ---- gradients (gradients.c) ----
// Makes `gradient` (+ gradient2) of every trained parameter what the passes so far gave; whoever reads one calls it first.
void gradients_settle(Policy *p);
// Whether a product that gives all of q's gradient is the first to do so: it is written then, which saves zeroing and reading it.
static inline bool gradient_begins(Parameter *q) {
    bool fresh = q->fresh;
    q->fresh = false;
    return fresh;
}
// Before a part of q's gradient is added to: zeros, where there is nothing yet.
void gradient_prepare(const Policy *p, Parameter *q);
// Whether lookups have a gradient of their own.
static inline bool lookups_apart(const Policy *p) { return p->embedding->trained && p->head == p->embedding; }
bool lookups_reserve(Policy *p, int64_t rows, Err *err) MUST_CHECK;
// Rows for the batch's tokens, staged; after a failure nothing is left of what lookups gave so far.
bool lookups_begin(Policy *p, const Packed *batch, Err *err) MUST_CHECK;
void lookups_free(Policy *p);
// ---- activations of rollouts (retain.c) ----
// Whether a rollout of so many slots keeps its activations: the model can, and they are asked for or small beside its weights.
bool retain_wanted(const Policy *p, Retain retain, int64_t slots);
// Room for those of `pages` pages, nothing held yet; and for passes of `rows` rows.
bool retain_reserve(Policy *p, int64_t pages, int64_t rows, Err *err) MUST_CHECK;
// A new rollout of so many samples begins: what was held is forgotten.
void retain_begin(Policy *p, int32_t samples);
// A sample is admitted; `pages` in its table, at most `tokens` in its course. Then it has ended, and gets a handle.
void retain_sample(Policy *p, int32_t index, const RolloutRequest *r, const int32_t *table, int32_t pages);
uint64_t retain_end(Policy *p, int32_t index, const Completion *c);
void retain_drop(Policy *p); // nothing is held from now on: weights have changed, or their memory is needed
void retain_free(Policy *p);
// After layer `layer` of a pass, and after the last one.
void retain_layer(const Policy *p, const Pass *pass, int layer);
void retain_last(const Policy *p, const Pass *pass);
// Whether all of a batch is held; then its rows and records are found, for staging.
bool retain_find(Policy *p, const Packed *batch);
// What the forward pass leaves, from the rollout; and before the way back through a layer, what that reads.
void restore_forward(Policy *p, const Packed *batch);
void restore_layer(Policy *p, int layer);

// RoPE's tables for positions below `positions`, as they are within the original length.
bool rope_reserve(Policy *p, int64_t positions, Err *err) MUST_CHECK;
// Longest sequence that can be sampled, 0 where rotary positions set no limit (rotary.c).
int64_t rope_limit(const ModelConfig *c);
// Rows behind those tables, and training.angle, for the sequences of a batch that are beyond it.
bool rope_stretch(Policy *p, const Packed *b, Err *err) MUST_CHECK;

// Over what *out held before, whose memory serves again.
void paging_build(const Packed *batch, int32_t heads, Paging *out);
void paging_free(Paging *paging);
bool packed_check(const Policy *p, const Packed *batch, Err *err) MUST_CHECK;

#endif
