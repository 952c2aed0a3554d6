// Distillation: a policy learns the distributions of a frozen teacher (Hinton et al. 2015; Agarwal et al. 2024). Both
// make a pass over the same batch; what they give the head lies side by side, and the device compares their distributions a tile
// at a time, so that no [R, V] array of either is ever held. Owns nothing: buffers are the two policies' own.
#include "model.h"

DistillArgs distill_args(const Policy *p, const Policy *teacher, float beta, int64_t from, int64_t count) {
    const Training *t = &p->training;
    DistillArgs a = {.student = training_head(p, from, count), .teacher = training_head(teacher, from, count), .beta = beta,
                     .divergence = t->divergence + from, .centre = t->centre + from, .scratch = p->head_scratch};
    return a;
}

static bool check_tokenizers(const Policy *p, const Policy *teacher, const char *where, Err *err) {
    const Tokenizer *a = p->tokenizer, *b = teacher->tokenizer;
    int32_t id;
    if (!a || !b) return fail(err, ERR_DATA, where, "%s has no tokenizer, expected the same one as the %s's", a ? "the teacher" : "the model", a ? "model" : "teacher");
    if (tokenizer_same_ids(a, b, &id)) return true;
    if (id >= tokenizer_size(a) || id >= tokenizer_size(b))
        return fail(err, ERR_DATA, where, "the teacher's tokenizer has %d tokens, the model's %d; expected the same ones", tokenizer_size(b), tokenizer_size(a));
    Buf mine = {0}, its = {0};
    Err ignored = {0};
    bool known = tokenizer_decode(a, &id, 1, false, &mine, &ignored) && tokenizer_decode(b, &id, 1, false, &its, &ignored);
    fail(err, ERR_DATA, where, "token %d is '%.40s' to the teacher and '%.40s' to the model, expected the same tokenizer", id,
         known && its.data ? its.data : "", known && mine.data ? mine.data : "");
    buf_free(&mine), buf_free(&its);
    return false;
}

bool policy_check_teacher(const Policy *p, const Policy *teacher, const char *where, Err *err) {
    TRY(check_tokenizers(p, teacher, where, err));
    if (p->dtype != teacher->dtype) return fail(err, ERR_SOFTWARE, where, "teacher and model differ in precision");
    return p->device == teacher->device || fail(err, ERR_SOFTWARE, where, "teacher and model are on two devices");
}

static bool check_targets(const Packed *b, int32_t vocabulary, Err *err) {
    for (int32_t r = 0; r < b->target_count; r++)
        if (b->target[r] >= vocabulary) return fail(err, ERR_DATA, "targets", "id %d, teacher and model share ids 0 to %d", b->target[r], vocabulary - 1);
    return true;
}

bool policy_distill(Policy *p, Policy *teacher, const Packed *batch, double beta, const float *weight, float *divergence, float *logprob, float *entropy,
                    Err *err) {
    const Device *d = p->device;
    Packed whole = *batch;
    int64_t R = batch->target_count;
    if (p->owner || teacher->owner || p == teacher) return fail(err, ERR_SOFTWARE, "policy", "teacher and model need buffers of their own");
    // Heads may be padded to different sizes; what both have covers the tokenizer.
    whole.vocabulary = p->config.vocabulary < teacher->config.vocabulary ? p->config.vocabulary : teacher->config.vocabulary;
    whole.kept_start = NULL, whole.kept_ids = NULL;
    TRY(check_targets(&whole, whole.vocabulary, err));
    TRY(training_forward(teacher, &whole, false, err) && training_forward(p, &whole, weight != NULL, err));
    training_logprobs(teacher, R), training_logprobs(p, R);
    DistillArgs args = distill_args(p, teacher, (float)beta, 0, R);
    if (R) d->distill(d, &args);
    if (weight) TRY(training_backward(&(Backward){.p = p, .teacher = teacher, .beta = (float)beta}, &whole, weight, NULL, err));
    if (R) d->download(d, divergence, p->training.divergence, (size_t)R * 4);
    return training_results(p, R, logprob, entropy, err);
}
