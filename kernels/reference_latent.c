// The slow twins of latent attention: rotation and the store into pages, attention of all heads over one key, gradients.
#include "reference.h"

enum { MAX_ROTATED = 512 };

// x [P] to y: pairs of neighbours or of halves, rotated, in halves.
static void rotate_pairs(const float *x, const float *cosine, const float *sine, int P, bool interleaved, float *y) {
    for (int i = 0; i < P / 2; i++) {
        float a = interleaved ? x[2 * i] : x[i], b = interleaved ? x[2 * i + 1] : x[i + P / 2];
        y[i] = a * cosine[i] - b * sine[i];
        y[i + P / 2] = b * cosine[i] + a * sine[i];
    }
}
static void rotate_back(const float *y, const float *cosine, const float *sine, int P, bool interleaved, float *x) {
    for (int i = 0; i < P / 2; i++) {
        x[interleaved ? 2 * i : i] = y[i] * cosine[i] + y[i + P / 2] * sine[i];
        x[interleaved ? 2 * i + 1 : i + P / 2] = y[i + P / 2] * cosine[i] - y[i] * sine[i];
    }
}

void latent_rope_reference(const Team *team, const LatentRopeArgs *a) {
    ONLY_FIRST
    int64_t W = a->R + a->P, page = latent_page_elements(W);
    float row[MAX_ROTATED];
    for (int64_t t = 0; t < a->T; t++) {
        const float *cosine = a->cos_sin + (int64_t)a->position[t] * a->P, *sine = cosine + a->P / 2;
        for (int64_t h = t * a->heads; h < (t + 1) * a->heads; h++) {
            const float *q = a->q + h * (a->N + a->P);
            for (int n = 0; n < a->N; n++) put(a->q_plain, h * a->N + n, q[n], a->dtype);
            rotate_pairs(q + a->N, cosine, sine, a->P, a->interleaved, row);
            for (int i = 0; i < a->P; i++) put(a->q_full, h * W + a->R + i, row[i], a->dtype);
        }
        rotate_pairs(a->key + t * a->ldkey, cosine, sine, a->P, a->interleaved, row);
        for (int64_t i = a->slot_start[t]; i < a->slot_start[t + 1]; i++) {
            int64_t base = a->slot[i] / PAGE * page + a->slot[i] % PAGE;
            for (int64_t d = 0; d < a->R; d++) put(a->pages, base + d * PAGE, get(a->latent, t * a->R + d, a->dtype), a->dtype);
            for (int64_t d = 0; d < a->P; d++) put(a->pages, base + (a->R + d) * PAGE, row[d], a->dtype);
        }
    }
}

void latent_rope_grad_reference(const Team *team, const LatentRopeGradArgs *a) {
    ONLY_FIRST
    int64_t W = a->R + a->P, Wp = head_padded(W);
    float row[MAX_ROTATED], sum[MAX_LATENT];
    for (int64_t t = 0; t < a->T; t++) {
        const float *cosine = a->cos_sin + (int64_t)a->position[t] * a->P, *sine = cosine + a->P / 2;
        for (int64_t h = t * a->heads; h < (t + 1) * a->heads; h++) {
            rotate_back(a->dq_full + h * W + a->R, cosine, sine, a->P, a->interleaved, row);
            for (int n = 0; n < a->N; n++) put(a->dq, h * (a->N + a->P) + n, a->dq_plain[h * a->N + n], a->dtype);
            for (int i = 0; i < a->P; i++) put(a->dq, h * (a->N + a->P) + a->N + i, row[i], a->dtype);
        }
        for (int64_t d = 0; d < W; d++) {
            sum[d] = 0;
            for (int64_t i = a->slot_start[t]; i < a->slot_start[t + 1]; i++) sum[d] += a->dpages[a->slot[i] * Wp + d];
        }
        memcpy(a->dlatent + t * a->R, sum, (size_t)a->R * sizeof *sum);
        rotate_back(sum + a->R, cosine, sine, a->P, a->interleaved, row);
        for (int i = 0; i < a->P; i++) put(a->dkey, t * a->ldkey + i, row[i], a->dtype);
    }
}

static float score(const LatentAttentionArgs *a, int64_t at, int64_t keys, int j) {
    float s = 0;
    for (int64_t d = 0; d < a->W; d++) s = fmaf(get(a->q, at * a->W + d, a->dtype), get(a->pages, keys + d * PAGE + j, a->dtype), s);
    return s * a->scale;
}

void latent_attention_reference(const Team *team, const LatentAttentionArgs *a) {
    ONLY_FIRST
    int64_t page = latent_page_elements(a->W);
    for (int64_t at = 0; at < a->T * a->heads; at++) {
        int64_t t = at / a->heads;
        float max = -INFINITY, sum = 0, out[MAX_LATENT] = {0};
        for (int64_t c = 0; c * PAGE <= a->position[t]; c++) {
            int64_t left = a->position[t] + 1 - c * PAGE, valid = left < PAGE ? left : PAGE, keys = a->table[a->table_start[t] + c] * page;
            float s[PAGE], top = max, lanes[16];
            for (int j = 0; j < valid; j++) s[j] = score(a, at, keys, j), top = s[j] > top ? s[j] : top;
            float factor = exp_reference(max - top);
            for (int j = 0; j < PAGE; j++) s[j] = j < valid ? exp_reference(s[j] - top) : 0.0f;
            for (int i = 0; i < 16; i++) lanes[i] = s[i] + s[i + 16];
            sum = sum * factor + tree_sum(lanes);
            max = top;
            for (int64_t d = 0; d < a->R; d++) {
                out[d] *= factor;
                for (int j = 0; j < valid; j++) out[d] = fmaf(s[j], get(a->pages, keys + d * PAGE + j, a->dtype), out[d]);
            }
        }
        for (int64_t d = 0; d < a->R; d++) put(a->y, at * a->R + d, out[d] * (1.0f / sum), a->dtype);
        if (a->lse) a->lse[at] = max + (float)exact_log(sum);
    }
}

// Weight and gradient of the score of each position that row `at` sees of a page.
static void grad_weights(const LatentAttentionGradArgs *b, int64_t at, int64_t keys, int valid, float *p, float *ds) {
    const LatentAttentionArgs *a = &b->forward;
    for (int j = 0; j < valid; j++) {
        float dp = 0;
        p[j] = exp_reference(score(a, at, keys, j) - a->lse[at]);
        for (int64_t d = 0; d < a->R; d++) dp = fmaf(b->dy[at * a->R + d], get(a->pages, keys + d * PAGE + j, a->dtype), dp);
        ds[j] = p[j] * (dp - b->delta[at]) * a->scale;
    }
}

void latent_attention_grad_reference(const Team *team, const LatentAttentionGradArgs *b) {
    ONLY_FIRST
    const LatentAttentionArgs *a = &b->forward;
    int64_t W = a->W, Wp = head_padded(W), R = a->R, page = latent_page_elements(W);
    for (int64_t i = b->unit_page[0] * page; i < b->unit_page[b->unit_count] * page; i++) b->dpages[i] = 0;
    for (int64_t at = 0; at < a->T * a->heads; at++) {
        float lanes[16] = {0};
        for (int64_t d = 0; d < R; d++) lanes[d % 16] = fmaf(b->dy[at * R + d], get(a->y, at * R + d, a->dtype), lanes[d % 16]);
        b->delta[at] = tree_sum(lanes);
        for (int64_t d = 0; d < W; d++) b->dq[at * W + d] = 0;
        int64_t t = at / a->heads;
        for (int64_t c = 0; c * PAGE <= a->position[t]; c++) {
            int64_t left = a->position[t] + 1 - c * PAGE, number = a->table[a->table_start[t] + c];
            int valid = (int)(left < PAGE ? left : PAGE);
            float p[PAGE], ds[PAGE];
            grad_weights(b, at, number * page, valid, p, ds);
            for (int64_t d = 0; d < W; d++)
                for (int j = 0; j < valid; j++) {
                    float *dk = &b->dpages[(number * PAGE + j) * Wp + d];
                    b->dq[at * W + d] = fmaf(ds[j], get(a->pages, number * page + d * PAGE + j, a->dtype), b->dq[at * W + d]);
                    *dk = fmaf(ds[j], get(a->q, at * W + d, a->dtype), *dk);
                    if (d < R) *dk = fmaf(p[j], b->dy[at * R + d], *dk);
                }
        }
    }
}
