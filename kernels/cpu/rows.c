// Operations that work on rows of tokens: embedding, RMSNorm, RoPE with the store into pages, SwiGLU, gather, scatter,
// conversion. Row-wise sums: 16 lanes then a halving tree; sums over tokens: ascending, columns shared by threads.
#include "simd.h"
#include "../blocks.h"
#include "exact.h"

INLINE bool is_half(Dtype d) { return d == DTYPE_BF16; }

// ---- embedding -------------------------------------------------------------------------------------------
// A row in blocks, rounded as the packed form has it.
static void embed_blocks(const EmbedArgs *a, int64_t row, float *y, bool half) {
    const uint8_t *from = (const uint8_t *)a->table + row * blocks_row_bytes(a->format, a->C);
    for (int64_t g = 0; g < a->C / 32; g++) {
        block_group(a->format, from, g, y + 32 * g);
        for (int i = 0; i < 32 && half; i++) y[32 * g + i] = from_bf16(to_bf16(y[32 * g + i]));
    }
}
void V(embed)(const Team *team, const EmbedArgs *a) {
    bool half = is_half(a->dtype);
    int step = half ? 2 : 1;
    int64_t from, to, depth = packed_depth(a->C, a->dtype);
    team_share(team, a->T, 1, &from, &to);
    for (int64_t t = from; t < to; t++) {
        int64_t row = a->tokens[t], base = row / PANEL * depth * PANEL + row % PANEL * step;
        float *y = a->y + t * a->C;
        if (a->format != WEIGHT_PACKED) embed_blocks(a, row, y, half);
        else
            for (int64_t c = 0; c < a->C; c++) y[c] = act_get(a->table, base + c / step * PANEL * step + c % step, half);
        for (int64_t c = 0; c < a->C && a->scale != 0; c++) y[c] *= a->scale;
    }
}

void V(embed_grad)(const Team *team, const EmbedGradArgs *a) {
    int64_t from, to;
    float scale = a->scale != 0 ? a->scale : 1.0f;
    team_share(team, a->C, 16, &from, &to);
    for (int64_t t = 0; t < a->T; t++) {
        float *d = a->dtable + a->tokens[t] * a->C;
        const float *dy = a->dy + t * a->C;
        for (int64_t c = from; c < to; c++) d[c] += dy[c] * scale;
    }
}

// ---- RMSNorm ---------------------------------------------------------------------------------------------
INLINE v16 norm_weight(const float *weight, int64_t c, int64_t n, bool offset) {
    v16 w = lanes_load(weight, c, n, false);
    return offset ? v_add(v_set1(1.0f), w) : w;
}

void V(rmsnorm)(const Team *team, const RmsnormArgs *a) {
    int64_t from, to, heads = a->heads ? a->heads : 1, ldx = a->ldx ? a->ldx : heads * a->C, ldy = a->ldy ? a->ldy : heads * a->C;
    bool half = a->store == STORE_ACT && is_half(a->dtype);
    team_share(team, a->T * heads, 1, &from, &to);
    for (int64_t i = from; i < to; i++) {
        int64_t t = i / heads, column = (i - t * heads) * a->C, y = t * ldy + column;
        const float *x = a->x + t * ldx + column;
        v16 sum = v_zero();
        FOR_LANES(a->C) {
            v16 v = lanes_load(x, c, n, false);
            sum = v_fma(v, v, sum);
        }
        float mean = v_sum(sum) / (float)a->C, rstd = 1.0f / sqrtf(mean + a->eps);
        if (a->rstd) a->rstd[i] = rstd;
        v16 scale = v_set1(rstd);
        FOR_LANES(a->C) {
            v16 v = v_mul(v_mul(lanes_load(x, c, n, false), scale), norm_weight(a->weight, c, n, a->offset));
            if (a->store == ADD_F32) v = v_add(lanes_load(a->y, y + c, n, false), v);
            lanes_store_result(a->y, y + c, v, n, half);
        }
    }
}

// dweight of `width` registers of columns from c on, tokens ascending: a row's lines are read one after the other.
INLINE void norm_weight_sums(const RmsnormGradArgs *a, int64_t c, int64_t n, int width, int64_t heads, int64_t ldx, int64_t lddy) {
    v16 sum[4];
    for (int i = 0; i < width; i++) sum[i] = lanes_load(a->dweight, c + 16 * i, n, false);
    for (int64_t t = 0; t < a->T; t++)
        for (int64_t h = 0; h < heads; h++) {
            const float *x = a->x + t * ldx + h * a->C + c, *dy = a->dy + t * lddy + h * a->C + c;
            v16 rstd = v_set1(a->rstd[t * heads + h]);
            for (int i = 0; i < width; i++)
                sum[i] = v_fma(lanes_load(dy, 16 * i, n, false), v_mul(lanes_load(x, 16 * i, n, false), rstd), sum[i]);
        }
    for (int i = 0; i < width; i++) lanes_store(a->dweight, c + 16 * i, sum[i], n, false);
}

// With xhat = x rstd and g = dy w: dx = rstd (g - xhat mean(g xhat)); dweight = sum_t dy xhat.
void V(rmsnorm_grad)(const Team *team, const RmsnormGradArgs *a) {
    int64_t from, to, heads = a->heads ? a->heads : 1, row = heads * a->C;
    int64_t ldx = a->ldx ? a->ldx : row, lddy = a->lddy ? a->lddy : row, lddx = a->lddx ? a->lddx : row;
    bool half = a->written && is_half(a->dtype);
    team_share(team, a->T * heads, 1, &from, &to);
    for (int64_t i = from; i < to; i++) {
        int64_t t = i / heads, column = (i - t * heads) * a->C, dx = t * lddx + column;
        const float *x = a->x + t * ldx + column, *dy = a->dy + t * lddy + column;
        v16 sum = v_zero(), rstd = v_set1(a->rstd[i]);
        FOR_LANES(a->C) {
            v16 g = v_mul(lanes_load(dy, c, n, false), norm_weight(a->weight, c, n, a->offset));
            sum = v_fma(g, v_mul(lanes_load(x, c, n, false), rstd), sum);
        }
        v16 mean = v_set1(v_sum(sum) / (float)a->C);
        FOR_LANES(a->C) {
            v16 g = v_mul(lanes_load(dy, c, n, false), norm_weight(a->weight, c, n, a->offset));
            v16 xhat = v_mul(lanes_load(x, c, n, false), rstd);
            v16 d = v_mul(rstd, v_sub(g, v_mul(xhat, mean)));
            lanes_store_result(a->dx, dx + c, a->written ? d : v_add(lanes_load(a->dx, dx + c, n, false), d), n, half);
        }
    }
    team_share(team, a->C, 16, &from, &to);
    int64_t c = from;
    for (; c + 64 <= to; c += 64) norm_weight_sums(a, c, 16, 4, heads, ldx, lddy);
    for (; c < to; c += 16) norm_weight_sums(a, c, to - c < 16 ? to - c : 16, 1, heads, ldx, lddy);
}

// ---- RoPE and the pages ----------------------------------------------------------------------------------
// The first R of D elements in halves; the others stay.
INLINE void rotate(const float *x, const float *cosine, int R, int D, float sign, float *restrict y) {
    int half_width = R / 2;
    const float *sine = cosine + half_width;
    for (int i = 0; i < half_width; i++) {
        float a = x[i], b = x[i + half_width], s = sign * sine[i];
        y[i] = a * cosine[i] - b * s;
        y[i + half_width] = b * cosine[i] + a * s;
    }
    for (int i = R; i < D; i++) y[i] = x[i];
}

void V(rope)(const Team *team, const RopeArgs *a) {
    bool half = is_half(a->dtype);
    int64_t from, to, D = a->D, R = a->rotary ? a->rotary : D, Dp = head_padded(D), columns = (a->heads + 2 * a->kv_heads) * D;
    int64_t page = page_elements(a->kv_heads, D);
    float row[512];
    bf16 rounded[512];
    team_share(team, a->T, 1, &from, &to);
    for (int64_t t = from; t < to; t++) {
        const float *x = a->qkv + t * columns, *cosine = a->cos_sin + (int64_t)a->position[t] * R;
        for (int h = 0; h < a->heads; h++) {
            rotate(x + h * D, cosine, (int)R, (int)D, 1.0f, row);
            FOR_LANES(D) lanes_store(a->q, (t * a->heads + h) * D + c, v_load(row + c), n, half);
        }
        for (int h = 0; h < a->kv_heads; h++) {
            rotate(x + (a->heads + h) * D, cosine, (int)R, (int)D, 1.0f, row);
            const float *value = x + (a->heads + a->kv_heads + h) * D;
            if (half) FOR_LANES(D) lanes_store(rounded, c, v_load(row + c), n, true);
            for (int64_t i = a->slot_start[t]; i < a->slot_start[t + 1]; i++) {
                int64_t slot = a->slot[i] % PAGE, keys = a->slot[i] / PAGE * page + h * 2 * PAGE * Dp;
                int64_t values = keys + PAGE * Dp + slot * Dp;
                for (int64_t d = 0; half && d < D; d++) ((bf16 *)a->pages)[keys + d * PAGE + slot] = rounded[d];
                for (int64_t d = 0; !half && d < D; d++) ((float *)a->pages)[keys + d * PAGE + slot] = row[d];
                FOR_LANES(D) lanes_store(a->pages, values + c, lanes_load(value, c, n, false), n, half);
            }
        }
    }
}

// The gradient of head h (of q and k, counted through) of token t.
INLINE void store_dqk(const RopeGradArgs *a, int64_t t, int64_t h, const float *row, bool half) {
    int64_t rounded = (t * (a->heads + 2 * a->kv_heads) + h) * a->D, exact = (t * (a->heads + a->kv_heads) + h) * a->D;
    FOR_LANES(a->D) {
        if (a->dqk)
            lanes_store(a->dqk, exact + c, v_load(row + c), n, false);
        else
            lanes_store(a->dqkv, rounded + c, v_load(row + c), n, half);
    }
}
void V(rope_grad)(const Team *team, const RopeGradArgs *a) {
    bool half = is_half(a->dtype);
    int64_t from, to, D = a->D, R = a->rotary ? a->rotary : D, Dp = head_padded(D), columns = (a->heads + 2 * a->kv_heads) * D;
    int64_t page = page_elements(a->kv_heads, D);
    float sum[2][512], row[512];
    team_share(team, a->T, 1, &from, &to);
    for (int64_t t = from; t < to; t++) {
        const float *cosine = a->cos_sin + (int64_t)a->position[t] * R;
        for (int h = 0; h < a->heads; h++) {
            rotate(a->dq + (t * a->heads + h) * D, cosine, (int)R, (int)D, -1.0f, row);
            store_dqk(a, t, h, row, half);
        }
        for (int h = 0; h < a->kv_heads; h++) {
            memset(sum[0], 0, (size_t)Dp * sizeof(float));
            memset(sum[1], 0, (size_t)Dp * sizeof(float));
            for (int64_t i = a->slot_start[t]; i < a->slot_start[t + 1]; i++) {
                const float *dk = a->dpages + a->slot[i] / PAGE * page + h * 2 * PAGE * Dp + a->slot[i] % PAGE * Dp;
                const float *dv = dk + PAGE * Dp;
                for (int64_t c = 0; c < Dp; c += 16) {
                    v_store(sum[0] + c, v_add(v_load(sum[0] + c), v_load(dk + c)));
                    v_store(sum[1] + c, v_add(v_load(sum[1] + c), v_load(dv + c)));
                }
            }
            rotate(sum[0], cosine, (int)R, (int)D, -1.0f, row);
            store_dqk(a, t, a->heads + h, row, half);
            int64_t v = t * columns + (a->heads + a->kv_heads + h) * D;
            FOR_LANES(D) lanes_store(a->dqkv, v + c, v_load(sum[1] + c), n, half);
        }
    }
}

// ---- SwiGLU and its like ---------------------------------------------------------------------------------
// What the gate's sigmoid is of: x, or 2 sqrt(2/pi) (x + 0.044715 x^3).
INLINE v16 gate_argument(Gate gate, v16 x) {
    if (gate == GATE_SILU) return x;
    return v_mul(v_mul(v_set1(1.5957691216057308f), x), v_fma(v_set1(0.044715f), v_mul(x, x), v_set1(1.0f)));
}
INLINE v16 gate_slope(Gate gate, v16 x, v16 s) {
    v16 one = v_set1(1.0f), inner = x;
    if (gate == GATE_GELU_TANH)
        inner = v_mul(x, v_mul(v_set1(1.5957691216057308f), v_fma(v_set1(0.134145f), v_mul(x, x), one)));
    return v_mul(s, v_fma(inner, v_sub(one, s), one));
}

// Narrow rows of gate and up end before the processor sees where they lead: the next row's lines are asked for meanwhile, so many
// elements further on; 0: there is none, or rows are long.
INLINE int64_t next_row(int64_t t, int64_t to, int64_t F) { return t + 1 < to && F <= 4096 ? 2 * F : 0; }

void V(swiglu)(const Team *team, const SwigluArgs *a) {
    bool half = is_half(a->dtype);
    int64_t from, to;
    team_share(team, a->T, 1, &from, &to);
    for (int64_t t = from; t < to; t++) {
        int64_t gate = t * 2 * a->F, up = gate + a->F, ahead = next_row(t, to, a->F);
        FOR_LANES(a->F) {
            act_prefetch(a->gate_up, gate + c + ahead, n, half), act_prefetch(a->gate_up, up + c + ahead, n, half);
            v16 g = lanes_load(a->gate_up, gate + c, n, half), u = lanes_load(a->gate_up, up + c, n, half);
            lanes_store_result(a->y, t * a->F + c, v_mul(v_mul(g, v_sigmoid(gate_argument(a->gate, g))), u), n, half);
        }
    }
}

// With s = sigmoid(u(g)): (g s)' = s (1 + g u'(g) (1 - s)).
void V(swiglu_grad)(const Team *team, const SwigluGradArgs *a) {
    bool half = is_half(a->dtype);
    int64_t from, to;
    team_share(team, a->T, 1, &from, &to);
    for (int64_t t = from; t < to; t++) {
        int64_t gate = t * 2 * a->F, up = gate + a->F, ahead = next_row(t, to, a->F);
        FOR_LANES(a->F) {
            act_prefetch(a->gate_up, gate + c + ahead, n, half), act_prefetch(a->gate_up, up + c + ahead, n, half);
            v16 g = lanes_load(a->gate_up, gate + c, n, half), u = lanes_load(a->gate_up, up + c, n, half);
            v16 dy = lanes_load(a->dy, t * a->F + c, n, false), s = v_sigmoid(gate_argument(a->gate, g)), value = v_mul(g, s);
            lanes_store_result(a->dgate_up, gate + c, v_mul(v_mul(dy, u), gate_slope(a->gate, g, s)), n, half);
            lanes_store_result(a->dgate_up, up + c, v_mul(dy, value), n, half);
            if (a->y) lanes_store_result(a->y, t * a->F + c, v_mul(value, u), n, half);
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

void V(move_rows)(const Team *team, const MoveRowsArgs *a) {
    int64_t first, end;
    team_share(team, a->n, 1, &first, &end);
    for (int64_t i = first; i < end; i++) {
        size_t from = (size_t)(a->from ? a->from[i] : i), to = (size_t)(a->to ? a->to[i] : i);
        for (int k = 0; k < a->count; k++) {
            size_t bytes = a->arrays[k].bytes;
            memcpy((char *)a->arrays[k].y + to * bytes, (const char *)a->arrays[k].x + from * bytes, bytes);
        }
    }
}

void V(scatter)(const Team *team, const ScatterArgs *a) {
    int64_t from, to;
    team_share(team, a->C, 16, &from, &to);
    for (int64_t t = 0; t < a->T; t++)
        for (int64_t c = from; c < to; c++) a->y[a->row[t] * a->C + c] += a->x[t * a->C + c];
}

void V(convert)(const Team *team, const ConvertArgs *a) {
    int64_t from, to, columns = a->columns ? a->columns : a->count;
    if (a->count <= 0) return;
    team_share(team, a->count, 64, &from, &to);
    for (int64_t c = from; c < to;) {
        int64_t left = columns - c % columns, n = to - c < 16 ? to - c : 16;
        if (n > left) n = left;
        lanes_store(a->y, convert_place(a, c), lanes_load(a->x, c, n, false), n, is_half(a->dtype));
        c += n;
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
        int32_t kept = row->kept ? row->kept_count : 0;
        DrawRecord *record = record_at(a->record, a->kept_room, s->recorded++ % a->ring * a->M + m);
        *record = (DrawRecord){row->token, row->logprob, row->entropy, kept};
        if (kept && kept <= a->kept_room) memcpy(record_ids(record), row->kept, (size_t)kept * 4);
        s->ended = ++s->length >= s->max_tokens || kept > a->kept_room || (!s->ignore_stop && is_stop(a, row->token));
        if (s->ended || !a->tokens) continue;
        int32_t position = ++s->position;
        a->tokens[m] = row->token;
        a->position[m] = position;
        a->slot[m] = (int64_t)a->table[m * a->table_stride + position / PAGE] * PAGE + position % PAGE;
        row->uniform = philox_uniform(s->key.key, s->step, s->prompt, s->sample, (uint32_t)s->length);
    }
}
