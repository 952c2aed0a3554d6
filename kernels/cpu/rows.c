// Operations that work on rows of tokens: embedding, RMSNorm, RoPE with the store into pages, SwiGLU, gather, scatter,
// conversion. Row-wise sums: 16 lanes then a halving tree; sums over tokens: ascending, columns shared by threads.
#include "simd.h"
#include "exact.h"

INLINE bool is_half(Dtype d) { return d == DTYPE_BF16; }

// ---- embedding -------------------------------------------------------------------------------------------
void V(embed)(const Team *team, const EmbedArgs *a) {
    bool half = is_half(a->dtype);
    int step = half ? 2 : 1;
    int64_t from, to, depth = packed_depth(a->C, a->dtype);
    team_share(team, a->T, 1, &from, &to);
    for (int64_t t = from; t < to; t++) {
        int64_t row = a->tokens[t], base = row / PANEL * depth * PANEL + row % PANEL * step;
        float *y = a->y + t * a->C;
        for (int64_t c = 0; c < a->C; c++) y[c] = act_get(a->table, base + c / step * PANEL * step + c % step, half);
    }
}

void V(embed_grad)(const Team *team, const EmbedGradArgs *a) {
    int64_t from, to;
    team_share(team, a->C, 16, &from, &to);
    for (int64_t t = 0; t < a->T; t++) {
        float *d = a->dtable + a->tokens[t] * a->C;
        const float *dy = a->dy + t * a->C;
        for (int64_t c = from; c < to; c++) d[c] += dy[c];
    }
}

// ---- RMSNorm ---------------------------------------------------------------------------------------------
void V(rmsnorm)(const Team *team, const RmsnormArgs *a) {
    bool half = is_half(a->dtype);
    int64_t from, to;
    team_share(team, a->T, 1, &from, &to);
    for (int64_t t = from; t < to; t++) {
        const float *x = a->x + t * a->C;
        v16 sum = v_zero();
        FOR_LANES(a->C) {
            v16 v = lanes_load(x, c, n, false);
            sum = v_fma(v, v, sum);
        }
        float mean = v_sum(sum) / (float)a->C, rstd = 1.0f / sqrtf(mean + a->eps);
        if (a->rstd) a->rstd[t] = rstd;
        v16 scale = v_set1(rstd);
        FOR_LANES(a->C) {
            v16 v = v_mul(v_mul(lanes_load(x, c, n, false), scale), lanes_load(a->weight, c, n, false));
            lanes_store(a->y, t * a->C + c, v, n, half);
        }
    }
}

// With xhat = x rstd and g = dy weight: dx = rstd (g - xhat mean(g xhat)); dweight = sum_t dy xhat.
void V(rmsnorm_grad)(const Team *team, const RmsnormGradArgs *a) {
    int64_t from, to;
    team_share(team, a->T, 1, &from, &to);
    for (int64_t t = from; t < to; t++) {
        const float *x = a->x + t * a->C, *dy = a->dy + t * a->C;
        v16 sum = v_zero(), rstd = v_set1(a->rstd[t]);
        FOR_LANES(a->C) {
            v16 g = v_mul(lanes_load(dy, c, n, false), lanes_load(a->weight, c, n, false));
            sum = v_fma(g, v_mul(lanes_load(x, c, n, false), rstd), sum);
        }
        v16 mean = v_set1(v_sum(sum) / (float)a->C);
        float *dx = a->dx + t * a->C;
        FOR_LANES(a->C) {
            v16 g = v_mul(lanes_load(dy, c, n, false), lanes_load(a->weight, c, n, false));
            v16 xhat = v_mul(lanes_load(x, c, n, false), rstd);
            v16 d = v_mul(rstd, v_sub(g, v_mul(xhat, mean)));
            lanes_store(dx, c, v_add(lanes_load(dx, c, n, false), d), n, false);
        }
    }
    team_share(team, a->C, 16, &from, &to);
    for (int64_t c = from; c < to; c += 16) {
        int64_t n = to - c < 16 ? to - c : 16;
        v16 sum = lanes_load(a->dweight, c, n, false);
        for (int64_t t = 0; t < a->T; t++) {
            v16 xhat = v_mul(lanes_load(a->x, t * a->C + c, n, false), v_set1(a->rstd[t]));
            sum = v_fma(lanes_load(a->dy, t * a->C + c, n, false), xhat, sum);
        }
        lanes_store(a->dweight, c, sum, n, false);
    }
}

// ---- RoPE and the pages ----------------------------------------------------------------------------------
INLINE void rotate(const float *x, const float *cosine, const float *sine, int half_width, float sign, float *y) {
    for (int i = 0; i < half_width; i++) {
        float a = x[i], b = x[i + half_width], s = sign * sine[i];
        y[i] = a * cosine[i] - b * s;
        y[i + half_width] = b * cosine[i] + a * s;
    }
}

void V(rope)(const Team *team, const RopeArgs *a) {
    bool half = is_half(a->dtype);
    int64_t from, to, D = a->D, Dp = head_padded(D), columns = (a->heads + 2 * a->kv_heads) * D;
    int64_t page = page_elements(a->kv_heads, D);
    float row[512];
    team_share(team, a->T, 1, &from, &to);
    for (int64_t t = from; t < to; t++) {
        const float *x = a->qkv + t * columns, *cosine = a->cos_sin + (int64_t)a->position[t] * D, *sine = cosine + D / 2;
        for (int h = 0; h < a->heads; h++) {
            rotate(x + h * D, cosine, sine, (int)(D / 2), 1.0f, row);
            FOR_LANES(D) lanes_store(a->q, (t * a->heads + h) * D + c, v_load(row + c), n, half);
        }
        for (int h = 0; h < a->kv_heads; h++) {
            rotate(x + (a->heads + h) * D, cosine, sine, (int)(D / 2), 1.0f, row);
            const float *value = x + (a->heads + a->kv_heads + h) * D;
            for (int64_t i = a->slot_start[t]; i < a->slot_start[t + 1]; i++) {
                int64_t slot = a->slot[i] % PAGE, keys = a->slot[i] / PAGE * page + h * 2 * PAGE * Dp;
                int64_t values = keys + PAGE * Dp + slot * Dp;
                for (int64_t d = 0; d < D; d++) {
                    act_put(a->pages, keys + d * PAGE + slot, row[d], half);
                    act_put(a->pages, values + d, value[d], half);
                }
            }
        }
    }
}

void V(rope_grad)(const Team *team, const RopeGradArgs *a) {
    bool half = is_half(a->dtype);
    int64_t from, to, D = a->D, Dp = head_padded(D), columns = (a->heads + 2 * a->kv_heads) * D;
    int64_t page = page_elements(a->kv_heads, D);
    float sum[2][512], row[512];
    team_share(team, a->T, 1, &from, &to);
    for (int64_t t = from; t < to; t++) {
        const float *cosine = a->cos_sin + (int64_t)a->position[t] * D, *sine = cosine + D / 2;
        for (int h = 0; h < a->heads; h++) {
            rotate(a->dq + (t * a->heads + h) * D, cosine, sine, (int)(D / 2), -1.0f, row);
            FOR_LANES(D) lanes_store(a->dqkv, t * columns + h * D + c, v_load(row + c), n, half);
        }
        for (int h = 0; h < a->kv_heads; h++) {
            memset(sum, 0, sizeof sum);
            for (int64_t i = a->slot_start[t]; i < a->slot_start[t + 1]; i++) {
                const float *dk = a->dpages + a->slot[i] / PAGE * page + h * 2 * PAGE * Dp + a->slot[i] % PAGE * Dp;
                const float *dv = dk + PAGE * Dp;
                for (int64_t d = 0; d < D; d++) sum[0][d] += dk[d], sum[1][d] += dv[d];
            }
            rotate(sum[0], cosine, sine, (int)(D / 2), -1.0f, row);
            int64_t k = t * columns + (a->heads + h) * D, v = k + a->kv_heads * D;
            FOR_LANES(D) {
                lanes_store(a->dqkv, k + c, v_load(row + c), n, half);
                lanes_store(a->dqkv, v + c, v_load(sum[1] + c), n, half);
            }
        }
    }
}

// ---- SwiGLU ----------------------------------------------------------------------------------------------
void V(swiglu)(const Team *team, const SwigluArgs *a) {
    bool half = is_half(a->dtype);
    int64_t from, to;
    team_share(team, a->T, 1, &from, &to);
    for (int64_t t = from; t < to; t++) {
        int64_t gate = t * 2 * a->F, up = gate + a->F;
        FOR_LANES(a->F) {
            v16 g = lanes_load(a->gate_up, gate + c, n, half), u = lanes_load(a->gate_up, up + c, n, half);
            lanes_store(a->y, t * a->F + c, v_mul(v_mul(g, v_sigmoid(g)), u), n, half);
        }
    }
}

// silu'(g) = s (1 + g (1 - s)), s = sigmoid(g).
void V(swiglu_grad)(const Team *team, const SwigluGradArgs *a) {
    bool half = is_half(a->dtype);
    int64_t from, to;
    v16 one = v_set1(1.0f);
    team_share(team, a->T, 1, &from, &to);
    for (int64_t t = from; t < to; t++) {
        int64_t gate = t * 2 * a->F, up = gate + a->F;
        FOR_LANES(a->F) {
            v16 g = lanes_load(a->gate_up, gate + c, n, half), u = lanes_load(a->gate_up, up + c, n, half);
            v16 dy = lanes_load(a->dy, t * a->F + c, n, false), s = v_sigmoid(g);
            v16 slope = v_mul(s, v_fma(g, v_sub(one, s), one));
            lanes_store(a->dgate_up, gate + c, v_mul(v_mul(dy, u), slope), n, half);
            lanes_store(a->dgate_up, up + c, v_mul(dy, v_mul(g, s)), n, half);
        }
    }
}

// ---- rows about ------------------------------------------------------------------------------------------
void V(gather)(const Team *team, const GatherArgs *a) {
    int64_t from, to;
    size_t bytes = (size_t)a->C * dtype_size(a->dtype);
    team_share(team, a->T, 1, &from, &to);
    for (int64_t t = from; t < to; t++)
        memcpy((char *)a->y + (size_t)t * bytes, (const char *)a->x + (size_t)a->row[t] * bytes, bytes);
}

void V(scatter)(const Team *team, const ScatterArgs *a) {
    int64_t from, to;
    team_share(team, a->C, 16, &from, &to);
    for (int64_t t = 0; t < a->T; t++)
        for (int64_t c = from; c < to; c++) a->y[a->row[t] * a->C + c] += a->x[t * a->C + c];
}

void V(convert)(const Team *team, const ConvertArgs *a) {
    int64_t from, to;
    team_share(team, a->count, 64, &from, &to);
    for (int64_t c = from; c < to; c += 16) {
        int64_t n = to - c < 16 ? to - c : 16;
        lanes_store(a->y, c, lanes_load(a->x, c, n, false), n, is_half(a->dtype));
    }
}

// ---- decoding --------------------------------------------------------------------------------------------
INLINE bool is_stop(const AdvanceArgs *a, int32_t token) {
    for (int i = 0; i < a->stop_count; i++)
        if (a->stop[i] == token) return true;
    return false;
}

void V(advance)(const Team *team, const AdvanceArgs *a) {
    int64_t from, to;
    team_share(team, a->M, 1, &from, &to);
    for (int64_t m = from; m < to; m++) {
        DecodeRow *s = &a->state[m];
        SampleRow *row = &a->rows[m];
        if (s->ended) continue;
        int64_t record = s->recorded++ * a->M + m;
        a->token[record] = row->token;
        a->logprob[record] = row->logprob;
        a->entropy[record] = row->entropy;
        s->ended = ++s->length >= s->max_tokens || (!s->ignore_stop && is_stop(a, row->token));
        if (s->ended || !a->tokens) continue;
        int32_t position = ++s->position;
        a->tokens[m] = row->token;
        a->position[m] = position;
        a->slot[m] = (int64_t)a->table[m * a->table_stride + position / PAGE] * PAGE + position % PAGE;
        row->uniform = philox_uniform(s->key.key, s->step, s->prompt, s->sample, (uint32_t)s->length);
    }
}
