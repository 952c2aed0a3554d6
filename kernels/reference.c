// The slow twin of every operation: what each one means, element by element, in plain C. All variants give these bits.
// Thread 0 does all the work.
#include "blocks.h"
#include "reference.h"
#include <stdlib.h>

// Cephes' tanhf: a polynomial near zero, beyond it 1 - 2 / (exp(2x) + 1).
static float tanh_reference(float x) {
    float size = x < 0 ? -x : x, z = x * x;
    if (size >= 0.625f) {
        float y = 1.0f - 2.0f / (exp_reference(size + size) + 1.0f);
        return x < 0 ? -y : y;
    }
    float p = -5.70498872745e-3f;
    p = fmaf(p, z, 2.06390887954e-2f);
    p = fmaf(p, z, -5.37397155531e-2f);
    p = fmaf(p, z, 1.33314422036e-1f);
    p = fmaf(p, z, -3.33332819422e-1f);
    return fmaf(p * z, x, x);
}

// ---- products --------------------------------------------------------------------------------------------

static float stored_weight(const PackArgs *a, int64_t n, int64_t k) {
    float group[32];
    block_group(a->format, (const uint8_t *)a->rows + n * blocks_row_bytes(a->format, a->K), k / 32, group);
    return group[k % 32];
}
void pack_reference(const Team *team, const PackArgs *a) {
    ONLY_FIRST
    size_t size = dtype_size(a->dtype);
    if (a->packed) memset(a->packed, 0, (size_t)panels_elements(a->N, a->K, a->dtype) * size);
    if (a->transposed) memset(a->transposed, 0, (size_t)panels_elements(a->K, a->N, a->dtype) * size);
    for (int64_t n = 0; n < a->N; n++)
        for (int64_t k = 0; k < a->K; k++) {
            float w = a->w ? a->w[n * a->K + k] : stored_weight(a, n, k);
            if (a->scale != 0) w *= a->scale;
            if (a->packed) put(a->packed, packed_index(n, k, a->K, a->dtype), w, a->dtype);
            if (a->transposed) put(a->transposed, packed_index(k, n, a->N, a->dtype), w, a->dtype);
        }
    if (a->int8) int8_pack_reference(a);
}

void unpack_reference(const Team *team, const UnpackArgs *a) {
    ONLY_FIRST
    for (int64_t i = 0; i < a->N * a->K; i++) a->w[i] = get(a->packed, packed_index(i / a->K, i % a->K, a->K, a->dtype), a->dtype);
}

// The packed form of the transpose of w [K, N], which the caller frees.
static void *turned(const MatmulArgs *a) {
    void *packed = xcalloc((size_t)panels_elements(a->N, a->K, a->dtype), dtype_size(a->dtype));
    for (int64_t n = 0; n < a->N; n++)
        for (int64_t k = 0; k < a->K; k++)
            put(packed, packed_index(n, k, a->K, a->dtype), get(a->w, packed_index(k, n, a->N, a->dtype), a->dtype), a->dtype);
    return packed;
}

static float product(const void *x, int64_t at, const void *w, int64_t n, int64_t K, Dtype d) {
    float sum = 0;
    if (d == DTYPE_F32)
        for (int64_t k = 0; k < K; k++) sum = fmaf(get(w, packed_index(n, k, K, d), d), get(x, at + k, d), sum);
    else
        for (int64_t k = 0; k < packed_depth(K, d); k += 2)
            sum = chain(sum, get(x, at + k, d), get(w, packed_index(n, k, K, d), d), get(x, at + k + 1, d),
                        get(w, packed_index(n, k + 1, K, d), d));
    return sum;
}

// Product i of many, as a call of its own.
static MatmulArgs matmul_of(const MatmulArgs *a, int i) {
    const Products *p = &a->products;
    MatmulArgs one = *a;
    int64_t from = p->start ? p->start[i * p->every] : 0, size = (int64_t)dtype_size(a->dtype);
    one.M = p->start ? p->start[(i + 1) * p->every] - from : a->M;
    one.x = (const char *)a->x + (from * a->ldx + i * p->x_step) * size;
    one.y = (char *)a->y + (from * a->ldy + i * p->y_step) * (a->store == STORE_ACT ? size : 4);
    one.w = (const char *)a->w + i * p->w_step * (a->format == WEIGHT_PACKED ? size : 1);
    one.products = (Products){0};
    return one;
}

// Blocks: decoded into the packed form, which the caller frees.
static void *decoded(const MatmulArgs *a) {
    int64_t rows = a->transposed ? a->K : a->N, columns = a->transposed ? a->N : a->K;
    void *packed = xcalloc((size_t)panels_elements(a->N, a->K, a->dtype), dtype_size(a->dtype));
    for (int64_t r = 0; r < rows; r++)
        for (int64_t g = 0; g < columns / 32; g++) {
            float values[32];
            block_group(a->format, (const uint8_t *)a->w + interleaved_row(r, a->interleaved) * blocks_row_bytes(a->format, columns), g, values);
            for (int64_t i = 0; i < 32; i++) {
                int64_t n = a->transposed ? 32 * g + i : r, k = a->transposed ? r : 32 * g + i;
                put(packed, packed_index(n, k, a->K, a->dtype), values[i], a->dtype);
            }
        }
    return packed;
}

void matmul_reference(const Team *team, const MatmulArgs *a) {
    ONLY_FIRST
    for (int i = 0; i < a->products.count; i++) {
        MatmulArgs one = matmul_of(a, i);
        matmul_reference(team, &one);
    }
    if (a->products.count) return;
    if ((a->format != WEIGHT_PACKED && a->format != WEIGHT_INT8) || a->transposed) {
        MatmulArgs plain = *a;
        void *packed = a->format == WEIGHT_PACKED ? turned(a) : decoded(a);
        plain.w = packed, plain.format = WEIGHT_PACKED, plain.transposed = false;
        matmul_reference(team, &plain);
        free(packed);
        return;
    }
    for (int64_t m = 0; m < a->M; m++)
        for (int64_t n = 0; n < a->N; n++) {
            bool bytes = a->format == WEIGHT_INT8;
            float y = bytes ? int8_product_reference(a->x, m * a->ldx, a->w, n, a->K, a->dtype) : product(a->x, m * a->ldx, a->w, n, a->K, a->dtype);
            if (a->bias) y += a->bias[n];
            if (a->store == ADD_F32) y = ((float *)a->y)[m * a->ldy + n] + y;
            put(a->y, m * a->ldy + n, y, a->store == STORE_ACT ? a->dtype : DTYPE_F32);
        }
}

static MatmulGradArgs matmul_grad_of(const MatmulGradArgs *a, int i) {
    const Products *p = &a->products;
    MatmulGradArgs one = *a;
    int64_t size = (int64_t)dtype_size(a->dtype);
    one.x = (const char *)a->x + i * p->x_step * size;
    one.dy = (const char *)a->dy + i * p->y_step * size;
    one.dw = a->dw + i * p->w_step;
    if (p->start) one.segments = (Segments){.count = p->every, .start = p->start + i * p->every};
    one.products = (Products){0};
    return one;
}

void matmul_grad_reference(const Team *team, const MatmulGradArgs *a) {
    ONLY_FIRST
    for (int i = 0; i < a->products.count; i++) {
        MatmulGradArgs one = matmul_grad_of(a, i);
        matmul_grad_reference(team, &one);
    }
    if (a->products.count) return;
    Dtype d = a->dtype;
    for (int64_t n = 0; n < a->N; n++) {
        for (int64_t k = 0; k < a->K; k++) {
            float sum = a->written ? 0.0f : a->dw[n * a->K + k];
            for (int s = 0; s < a->segments.count; s++)
                for (int64_t t = a->segments.start[s], end = a->segments.start[s + 1]; t < end; t += d == DTYPE_BF16 ? 2 : 1) {
                    float x0 = get(a->x, t * a->ldx + k, d), y0 = get(a->dy, t * a->ldy + n, d);
                    if (d == DTYPE_F32)
                        sum = fmaf(x0, y0, sum);
                    else if (t + 1 < end)
                        sum = chain(sum, x0, y0, get(a->x, (t + 1) * a->ldx + k, d), get(a->dy, (t + 1) * a->ldy + n, d));
                    else
                        sum = chain(sum, x0, y0, 0, 0);
                }
            a->dw[n * a->K + k] = sum;
        }
        if (a->dbias)
            for (int64_t t = 0; t < a->T; t++) a->dbias[n] += get(a->dy, t * a->ldy + n, d);
    }
}

// ---- rows ------------------------------------------------------------------------------------------------

// A number of a table in blocks, rounded as the packed form has it.
static float stored_value(const EmbedArgs *a, int64_t row, int64_t c) {
    float group[32];
    bf16 half;
    block_group(a->format, (const uint8_t *)a->table + row * blocks_row_bytes(a->format, a->C), c / 32, group);
    if (a->dtype == DTYPE_F32) return group[c % 32];
    put(&half, 0, group[c % 32], DTYPE_BF16);
    return get(&half, 0, DTYPE_BF16);
}
void embed_reference(const Team *team, const EmbedArgs *a) {
    ONLY_FIRST
    for (int64_t t = 0; t < a->T; t++)
        for (int64_t c = 0; c < a->C; c++) {
            float x = a->format == WEIGHT_PACKED ? get(a->table, packed_index(a->tokens[t], c, a->C, a->dtype), a->dtype) : stored_value(a, a->tokens[t], c);
            a->y[t * a->C + c] = a->scale != 0 ? x * a->scale : x;
        }
}

void embed_grad_reference(const Team *team, const EmbedGradArgs *a) {
    ONLY_FIRST
    for (int64_t t = 0; t < a->T; t++)
        for (int64_t c = 0; c < a->C; c++) a->dtable[a->tokens[t] * a->C + c] += a->dy[t * a->C + c] * (a->scale != 0 ? a->scale : 1.0f);
}

static float norm_weight(const float *weight, int64_t c, bool offset) { return offset ? 1.0f + weight[c] : weight[c]; }

void rmsnorm_reference(const Team *team, const RmsnormArgs *a) {
    ONLY_FIRST
    int64_t heads = a->heads ? a->heads : 1, ldx = a->ldx ? a->ldx : heads * a->C, ldy = a->ldy ? a->ldy : heads * a->C;
    for (int64_t i = 0; i < a->T * heads; i++) {
        const float *x = a->x + i / heads * ldx + i % heads * a->C;
        int64_t y = i / heads * ldy + i % heads * a->C;
        float lanes[16] = {0};
        for (int64_t c = 0; c < a->C; c++) lanes[c % 16] = fmaf(x[c], x[c], lanes[c % 16]);
        float rstd = 1.0f / sqrtf(tree_sum(lanes) / (float)a->C + a->eps);
        if (a->rstd) a->rstd[i] = rstd;
        for (int64_t c = 0; c < a->C; c++) {
            float value = x[c] * rstd * norm_weight(a->weight, c, a->offset);
            if (a->store == ADD_F32) value = ((float *)a->y)[y + c] + value;
            put(a->y, y + c, value, a->store == STORE_ACT ? a->dtype : DTYPE_F32);
        }
    }
}

void rmsnorm_grad_reference(const Team *team, const RmsnormGradArgs *a) {
    ONLY_FIRST
    int64_t heads = a->heads ? a->heads : 1, row = heads * a->C;
    int64_t ldx = a->ldx ? a->ldx : row, lddy = a->lddy ? a->lddy : row, lddx = a->lddx ? a->lddx : row;
    for (int64_t i = 0; i < a->T * heads; i++) {
        const float *x = a->x + i / heads * ldx + i % heads * a->C, *dy = a->dy + i / heads * lddy + i % heads * a->C;
        int64_t dx = i / heads * lddx + i % heads * a->C;
        float lanes[16] = {0}, r = a->rstd[i];
        for (int64_t c = 0; c < a->C; c++) lanes[c % 16] = fmaf(dy[c] * norm_weight(a->weight, c, a->offset), x[c] * r, lanes[c % 16]);
        float mean = tree_sum(lanes) / (float)a->C;
        for (int64_t c = 0; c < a->C; c++) {
            float d = r * (dy[c] * norm_weight(a->weight, c, a->offset) - x[c] * r * mean);
            if (a->written)
                put(a->dx, dx + c, d, a->dtype);
            else
                ((float *)a->dx)[dx + c] += d;
            a->dweight[c] = fmaf(dy[c], x[c] * r, a->dweight[c]);
        }
    }
}

// The first R of D elements in halves; the others stay.
static void rotate(const float *x, const float *cosine, const float *sine, int64_t R, int64_t D, float sign, float *y) {
    for (int64_t i = 0; i < R / 2; i++) {
        y[i] = x[i] * cosine[i] - x[i + R / 2] * (sign * sine[i]);
        y[i + R / 2] = x[i + R / 2] * cosine[i] + x[i] * (sign * sine[i]);
    }
    for (int64_t i = R; i < D; i++) y[i] = x[i];
}

void rope_reference(const Team *team, const RopeArgs *a) {
    ONLY_FIRST
    int64_t D = a->D, R = a->rotary ? a->rotary : D, Dp = head_padded(D), columns = (a->heads + 2 * a->kv_heads) * D;
    int64_t page = page_elements(a->kv_heads, D);
    float row[512];
    for (int64_t t = 0; t < a->T; t++) {
        const float *x = a->qkv + t * columns, *cosine = a->cos_sin + a->position[t] * R;
        for (int h = 0; h < a->heads + a->kv_heads; h++) {
            rotate(x + h * D, cosine, cosine + R / 2, R, D, 1, row);
            for (int64_t d = 0; d < D && h < a->heads; d++) put(a->q, (t * a->heads + h) * D + d, row[d], a->dtype);
            for (int64_t i = a->slot_start[t]; i < a->slot_start[t + 1] && h >= a->heads; i++) {
                int64_t base = a->slot[i] / PAGE * page + (h - a->heads) * 2 * PAGE * Dp, slot = a->slot[i] % PAGE;
                for (int64_t d = 0; d < D; d++) {
                    put(a->pages, base + d * PAGE + slot, row[d], a->dtype);
                    put(a->pages, base + PAGE * Dp + slot * Dp + d, x[(h + a->kv_heads) * D + d], a->dtype);
                }
            }
        }
    }
}

// The gradient of head h (of q and k, counted through) of token t.
static void put_dqk(const RopeGradArgs *a, int64_t t, int h, const float *row) {
    for (int64_t d = 0; d < a->D; d++) {
        if (a->dqk)
            a->dqk[(t * (a->heads + a->kv_heads) + h) * a->D + d] = row[d];
        else
            put(a->dqkv, (t * (a->heads + 2 * a->kv_heads) + h) * a->D + d, row[d], a->dtype);
    }
}
void rope_grad_reference(const Team *team, const RopeGradArgs *a) {
    ONLY_FIRST
    int64_t D = a->D, R = a->rotary ? a->rotary : D, Dp = head_padded(D), columns = (a->heads + 2 * a->kv_heads) * D;
    int64_t page = page_elements(a->kv_heads, D);
    float row[512], sum[2][512];
    for (int64_t t = 0; t < a->T; t++) {
        const float *cosine = a->cos_sin + a->position[t] * R;
        for (int h = 0; h < a->heads; h++) {
            rotate(a->dq + (t * a->heads + h) * D, cosine, cosine + R / 2, R, D, -1, row);
            put_dqk(a, t, h, row);
        }
        for (int h = 0; h < a->kv_heads; h++) {
            memset(sum, 0, sizeof sum);
            for (int64_t i = a->slot_start[t]; i < a->slot_start[t + 1]; i++)
                for (int64_t d = 0; d < D; d++) {
                    int64_t at = a->slot[i] / PAGE * page + h * 2 * PAGE * Dp + a->slot[i] % PAGE * Dp + d;
                    sum[0][d] += a->dpages[at];
                    sum[1][d] += a->dpages[at + PAGE * Dp];
                }
            rotate(sum[0], cosine, cosine + R / 2, R, D, -1, row);
            put_dqk(a, t, a->heads + h, row);
            for (int64_t d = 0; d < D; d++) put(a->dqkv, t * columns + (a->heads + a->kv_heads + h) * D + d, sum[1][d], a->dtype);
        }
    }
}

// 2 sqrt(2/pi) (x + 0.044715 x^3), and its slope.
static float gelu_argument(float x) { return 1.5957691216057308f * x * fmaf(0.044715f, x * x, 1.0f); }
static float gelu_slope(float x) { return 1.5957691216057308f * fmaf(0.134145f, x * x, 1.0f); }
static float gate_value(Gate gate, float x) { return x * sigmoid(gate == GATE_SILU ? x : gelu_argument(x)); }
static float gate_slope(Gate gate, float x) {
    float s = sigmoid(gate == GATE_SILU ? x : gelu_argument(x));
    return gate == GATE_SILU ? s * fmaf(x, 1.0f - s, 1.0f) : s * fmaf(x * gelu_slope(x), 1.0f - s, 1.0f);
}

void swiglu_reference(const Team *team, const SwigluArgs *a) {
    ONLY_FIRST
    for (int64_t t = 0; t < a->T; t++)
        for (int64_t f = 0; f < a->F; f++) {
            float g = get(a->gate_up, t * 2 * a->F + f, a->dtype), u = get(a->gate_up, (t * 2 + 1) * a->F + f, a->dtype);
            put(a->y, t * a->F + f, gate_value(a->gate, g) * u, a->dtype);
        }
}

void swiglu_grad_reference(const Team *team, const SwigluGradArgs *a) {
    ONLY_FIRST
    for (int64_t t = 0; t < a->T; t++)
        for (int64_t f = 0; f < a->F; f++) {
            int64_t gate = t * 2 * a->F + f, up = gate + a->F;
            float g = get(a->gate_up, gate, a->dtype), u = get(a->gate_up, up, a->dtype), dy = a->dy[t * a->F + f];
            put(a->dgate_up, gate, dy * u * gate_slope(a->gate, g), a->dtype);
            put(a->dgate_up, up, dy * gate_value(a->gate, g), a->dtype);
            if (a->y) put(a->y, t * a->F + f, gate_value(a->gate, g) * u, a->dtype);
        }
}

void gather_reference(const Team *team, const GatherArgs *a) {
    ONLY_FIRST
    for (int64_t i = 0; i < a->T * a->C; i++) put(a->y, i, get(a->x, a->row[i / a->C] * a->C + i % a->C, a->dtype), a->dtype);
}

void move_rows_reference(const Team *team, const MoveRowsArgs *a) {
    ONLY_FIRST
    for (int k = 0; k < a->count; k++)
        for (int64_t i = 0; i < a->n; i++)
            for (size_t b = 0, bytes = a->arrays[k].bytes; b < bytes; b++)
                ((char *)a->arrays[k].y)[(size_t)(a->to ? a->to[i] : i) * bytes + b] =
                    ((const char *)a->arrays[k].x)[(size_t)(a->from ? a->from[i] : i) * bytes + b];
}

void scatter_reference(const Team *team, const ScatterArgs *a) {
    ONLY_FIRST
    for (int64_t i = 0; i < a->T * a->C; i++) a->y[a->row[i / a->C] * a->C + i % a->C] += a->x[i];
}

void convert_reference(const Team *team, const ConvertArgs *a) {
    ONLY_FIRST
    for (int64_t i = 0; i < a->count; i++) put(a->y, convert_place(a, i), a->x[i], a->dtype);
}

// ---- attention -------------------------------------------------------------------------------------------
// A chain as matrix products have it.
static float score(const AttentionArgs *a, int64_t t, int h, int64_t keys, int j) {
    float s = 0, q[512] = {0};
    for (int64_t d = 0; d < a->D; d++) q[d] = get(a->q, (t * a->heads + h) * a->D + d, a->dtype);
    for (int64_t d = 0; d < a->D; d += a->dtype == DTYPE_BF16 ? 2 : 1) {
        float k = get(a->pages, keys + d * PAGE + j, a->dtype);
        s = a->dtype == DTYPE_BF16 ? chain(s, q[d], k, q[d + 1], get(a->pages, keys + (d + 1) * PAGE + j, a->dtype)) : fmaf(q[d], k, s);
    }
    return s * a->scale;
}

// Column d of the values of one page, weighted: weights of positions that aren't seen are zero. bf16 goes in pairs of
// positions, with weights rounded.
static float add_values(const AttentionArgs *a, float sum, const float *weights, int64_t values, int64_t d, int64_t from, int64_t valid) {
    int64_t Dp = head_padded(a->D);
    if (a->dtype == DTYPE_F32) {
        for (int64_t j = from; j < valid; j++) sum = fmaf(weights[j], get(a->pages, values + j * Dp + d, a->dtype), sum);
        return sum;
    }
    for (int64_t j = from / 2 * 2; j < valid; j += 2) {
        float v[2];
        for (int i = 0; i < 2; i++) v[i] = j + i >= from && j + i < valid ? get(a->pages, values + (j + i) * Dp + d, a->dtype) : 0.0f;
        sum = chain(sum, widen(narrow(weights[j])), v[0], widen(narrow(weights[j + 1])), v[1]);
    }
    return sum;
}

// The first position that row t sees.
static int64_t first_seen(const AttentionArgs *a, int64_t t) {
    return a->window && a->position[t] >= a->window ? a->position[t] + 1 - (int64_t)a->window : 0;
}

void attention_reference(const Team *team, const AttentionArgs *a) {
    ONLY_FIRST
    int64_t D = a->D, Dp = head_padded(D), page = page_elements(a->kv_heads, D);
    for (int64_t t = 0; t < a->T; t++)
        for (int h = 0; h < a->heads; h++) {
            float max = -INFINITY, sum = 0, out[512] = {0};
            int64_t start = first_seen(a, t);
            for (int64_t c = start / PAGE; c * PAGE <= a->position[t]; c++) {
                int64_t left = a->position[t] + 1 - c * PAGE, valid = left < PAGE ? left : PAGE, from = start > c * PAGE ? start - c * PAGE : 0;
                int64_t keys = a->table[a->table_start[t] + c] * page + h / (a->heads / a->kv_heads) * 2 * PAGE * Dp;
                float s[PAGE], top = max, lanes[16];
                for (int64_t j = from; j < valid; j++) s[j] = score(a, t, h, keys, (int)j), top = s[j] > top ? s[j] : top;
                float factor = exp_reference(max - top);
                for (int j = 0; j < PAGE; j++) s[j] = j >= from && j < valid ? exp_reference(s[j] - top) : 0.0f;
                for (int i = 0; i < 16; i++) lanes[i] = s[i] + s[i + 16];
                sum = sum * factor + tree_sum(lanes);
                max = top;
                for (int64_t d = 0; d < D; d++) out[d] = add_values(a, out[d] * factor, s, keys + PAGE * Dp, d, from, valid);
            }
            for (int64_t d = 0; d < D; d++) put(a->y, (t * a->heads + h) * D + d, out[d] * (1.0f / sum), a->dtype);
            if (a->lse) a->lse[t * a->heads + h] = max + (float)exact_log(sum);
        }
}

// One query head against positions [from, valid) of one page: adds to dq, dk, dv.
static void grad_row(const AttentionGradArgs *b, int64_t t, int h, int64_t page, int from, int valid) {
    const AttentionArgs *a = &b->forward;
    int64_t D = a->D, Dp = head_padded(D), at = t * a->heads + h;
    int64_t keys = page * page_elements(a->kv_heads, D) + h / (a->heads / a->kv_heads) * 2 * PAGE * Dp, values = keys + PAGE * Dp;
    float ds[PAGE];
    for (int j = from; j < valid; j++) {
        float p = exp_reference(score(a, t, h, keys, j) - a->lse[at]), dp = 0;
        for (int64_t d = 0; d < D; d++) dp = fmaf(b->dy[at * D + d], get(a->pages, values + j * Dp + d, a->dtype), dp);
        ds[j] = p * (dp - b->delta[at]) * a->scale;
        for (int64_t d = 0; d < D; d++) {
            float *dk = &b->dpages[keys + j * Dp + d], *dv = &b->dpages[values + j * Dp + d];
            *dk = fmaf(ds[j], get(a->q, at * D + d, a->dtype), *dk);
            *dv = fmaf(p, b->dy[at * D + d], *dv);
        }
    }
    for (int64_t d = 0; d < D; d++)
        for (int j = from; j < valid; j++)
            b->dq[at * D + d] = fmaf(ds[j], get(a->pages, keys + d * PAGE + j, a->dtype), b->dq[at * D + d]);
}

void attention_grad_reference(const Team *team, const AttentionGradArgs *b) {
    ONLY_FIRST
    const AttentionArgs *a = &b->forward;
    for (int64_t i = 0; i < a->T * a->heads; i++) {
        float lanes[16] = {0};
        for (int64_t d = 0; d < a->D; d++) {
            b->dq[i * a->D + d] = 0;
            lanes[d % 16] = fmaf(b->dy[i * a->D + d], get(a->y, i * a->D + d, a->dtype), lanes[d % 16]);
        }
        b->delta[i] = tree_sum(lanes);
    }
    int64_t first = b->unit_page[0], last = b->unit_page[b->unit_count], page = page_elements(a->kv_heads, a->D);
    memset(b->dpages + first * page, 0, (size_t)((last - first) * page) * sizeof(float));
    for (int64_t p = first; p < last; p++)
        for (int64_t t = 0; t < a->T; t++)
            for (int64_t start = first_seen(a, t), c = start / PAGE; c * PAGE <= a->position[t]; c++) {
                if (a->table[a->table_start[t] + c] != p) continue;
                int64_t left = a->position[t] + 1 - c * PAGE, from = start > c * PAGE ? start - c * PAGE : 0;
                for (int h = 0; h < a->heads; h++) grad_row(b, t, h, p, (int)from, (int)(left < PAGE ? left : PAGE));
            }
}

// ---- head ------------------------------------------------------------------------------------------------
// Logit v of row m, or minus infinity outside the vocabulary or the kept set.
// The same sum, of a row of weights in blocks.
static float product_of_row(const HeadArgs *a, int64_t m, int64_t v) {
    float group[32], sum = 0;
    bf16 w[32];
    for (int64_t k = 0; k < a->C; k++) {
        if (k % 32 == 0) block_group(a->format, (const uint8_t *)a->w + v * blocks_row_bytes(a->format, a->C), k / 32, group);
        if (a->dtype == DTYPE_F32) {
            sum = fmaf(group[k % 32], get(a->x, m * a->C + k, a->dtype), sum);
            continue;
        }
        put(w, k % 32, group[k % 32], DTYPE_BF16);
        if (k % 2) sum = chain(sum, get(a->x, m * a->C + k - 1, a->dtype), get(w, k % 32 - 1, DTYPE_BF16), get(a->x, m * a->C + k, a->dtype), get(w, k % 32, DTYPE_BF16));
    }
    return sum;
}
float logit_reference(const HeadArgs *a, int64_t m, int64_t v) {
    if (v >= a->V) return -INFINITY;
    bool kept = !a->kept_start;
    for (int64_t i = kept ? 0 : a->kept_start[m]; !kept && i < a->kept_start[m + 1]; i++) kept = a->kept[i] == v;
    if (!kept) return -INFINITY;
    float l = a->format == WEIGHT_PACKED ? product(a->x, m * a->C, a->w, v, a->C, a->dtype)
              : a->format == WEIGHT_INT8 ? int8_product_reference(a->x, m * a->C, a->w, v, a->C, a->dtype) : product_of_row(a, m, v);
    if (a->softcap != 0) l = a->softcap * tanh_reference(l / a->softcap);
    return l * a->inv_temperature[m];
}

static VocabStats stats_of(const float *row) {
    VocabStats s = {.max = -INFINITY};
    float sum[16] = {0}, weighted[16] = {0};
    for (int c = 0; c < VOCAB_BLOCK; c++) s.max = row[c] > s.max || row[c] != row[c] ? row[c] : s.max;
    if (s.max == -INFINITY) return s;
    for (int c = 0; c < VOCAB_BLOCK; c++) {
        float d = row[c] - s.max, e = exp_reference(d);
        sum[c % 16] += e;
        weighted[c % 16] = fmaf(e, d > -200.0f ? d : -200.0f, weighted[c % 16]);
    }
    s.sum = tree_sum(sum);
    s.weighted = tree_sum(weighted);
    return s;
}

static void merge(const VocabStats *stats, int64_t blocks, float *max, double *sum, double *log_sum, double *entropy) {
    double weighted = 0;
    *max = -INFINITY, *sum = 0;
    for (int64_t b = 0; b < blocks; b++) *max = stats[b].max > *max || stats[b].max != stats[b].max ? stats[b].max : *max;
    for (int64_t b = 0; b < blocks; b++) {
        if (stats[b].max == -INFINITY) continue;
        double shift = (double)stats[b].max - *max, e = exact_exp(shift);
        *sum += stats[b].sum * e;
        weighted += (stats[b].weighted + stats[b].sum * shift) * e;
    }
    *log_sum = exact_log(*sum);
    *entropy = *log_sum - weighted / *sum;
    if (*entropy < 0) *entropy = 0;
}

void head_reference(const Team *team, const HeadArgs *a) {
    ONLY_FIRST
    int64_t blocks = vocab_padded(a->V) / VOCAB_BLOCK;
    for (int64_t m = 0; m < a->M; m++) {
        float row[VOCAB_BLOCK], target = 0, max;
        double sum, log_sum, entropy;
        for (int64_t b = 0; b < blocks; b++) {
            for (int c = 0; c < VOCAB_BLOCK; c++) {
                row[c] = logit_reference(a, m, b * VOCAB_BLOCK + c);
                if (a->target && a->target[m] == b * VOCAB_BLOCK + c) target = row[c];
            }
            a->stats[m * blocks + b] = stats_of(row);
            if (a->logits) memcpy(a->logits + m * vocab_padded(a->V) + b * VOCAB_BLOCK, row, sizeof row);
        }
        merge(a->stats + m * blocks, blocks, &max, &sum, &log_sum, &entropy);
        if (a->target) a->logprob[m] = (float)(((double)target - max) - log_sum);
        if (a->entropy) a->entropy[m] = (float)entropy;
        if (a->max) a->max[m] = max, a->log_sum[m] = (float)log_sum;
    }
}

void head_grad_reference(const Team *team, const HeadGradArgs *g) {
    ONLY_FIRST
    const HeadArgs *a = &g->forward;
    int64_t padded = vocab_padded(a->V);
    for (int64_t m = 0; m < a->M; m++)
        for (int64_t v = 0; v < padded; v++) {
            float l = logit_reference(a, m, v), lp = l - a->max[m] - a->log_sum[m], p = exp_reference(lp);
            float h = g->dentropy ? g->dentropy[m] : 0.0f;
            float d = p * fmaf(h, (lp > -200.0f ? lp : -200.0f) + a->entropy[m], g->dlogprob[m]);
            float out = (0.0f - d) * a->inv_temperature[m];
            if (v == a->target[m]) out = out + g->dlogprob[m] * a->inv_temperature[m];
            if (a->softcap != 0) { // 1 - tanh^2, of what was capped and scaled
                float capped = l / (a->softcap * a->inv_temperature[m]);
                out = out * (l == -INFINITY ? 0.0f : fmaf(0.0f - capped, capped, 1.0f));
            }
            put(g->dlogits, m * g->ld + v, out, a->dtype);
        }
}

// Selection by repeated search for the likeliest token not taken yet: quadratic, and obviously the definition.
static void keep_reference(float *logits, int64_t V, float max, double mass, SampleRow *row) {
    char *taken = xcalloc((size_t)V, 1);
    int32_t *order = xcalloc((size_t)V, sizeof *order);
    int64_t count = row->top_k > 0 && row->top_k < V ? row->top_k : V, n = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t best = -1;
        for (int64_t v = 0; v < V; v++)
            if (!taken[v] && (best < 0 || logits[v] > logits[best])) best = v;
        taken[best] = 1;
        order[i] = (int32_t)best;
    }
    double total = count < V ? 0 : mass, sum = 0;
    for (int64_t i = 0; count < V && i < count; i++) total += exact_exp((double)logits[order[i]] - max);
    if (row->top_p < 1) {
        while (n < count && (n == 0 || sum < row->top_p * total)) sum += exact_exp((double)logits[order[n++]] - max);
        count = n;
    }
    for (n = 1; n < count && row->min_p > 0; n++)
        if (exact_exp((double)logits[order[n]] - logits[order[0]]) < row->min_p) count = n;
    memset(taken, 0, (size_t)V);
    for (int64_t i = 0; i < count; i++) taken[order[i]] = 1;
    row->kept_count = 0;
    for (int64_t v = 0; v < V; v++) {
        if (taken[v])
            row->kept[row->kept_count++] = (int32_t)v;
        else
            logits[v] = -INFINITY;
    }
    free(taken), free(order);
}

void sample_reference(const Team *team, const SampleArgs *a) {
    ONLY_FIRST
    int64_t padded = vocab_padded(a->V), blocks = padded / VOCAB_BLOCK;
    float *made = a->logits ? NULL : xcalloc((size_t)padded, sizeof *made);
    for (int64_t m = 0; m < a->M; m++) {
        SampleRow *row = &a->rows[m];
        float *logits = made ? made : a->logits + m * padded, max;
        VocabStats *stats = a->stats + m * blocks;
        double sum, log_sum, entropy, before = 0;
        merge(stats, blocks, &max, &sum, &log_sum, &entropy);
        if (sum != sum) {
            row->token = 0;
            row->logprob = row->entropy = NAN;
            if (row->kept) row->kept[0] = 0, row->kept_count = 1;
            continue;
        }
        for (int64_t v = 0; made && v < padded; v++) made[v] = logit_reference(&a->head, m, v);
        if (row->kept) {
            keep_reference(logits, a->V, max, sum, row);
            for (int64_t b = 0; b < blocks; b++) stats[b] = stats_of(logits + b * VOCAB_BLOCK);
            merge(stats, blocks, &max, &sum, &log_sum, &entropy);
        }
        row->entropy = row->kept ? (float)entropy : a->entropy[m];
        row->token = 0;
        for (int32_t v = 1; v < a->V; v++)
            if (logits[v] > logits[row->token]) row->token = v;
        // The block whose share of the mass holds the goal, then the token in it.
        for (int64_t b = 0; !row->greedy && b < blocks; b++) {
            double mass = stats[b].max == -INFINITY ? 0 : stats[b].sum * exact_exp((double)stats[b].max - max);
            bool more = false;
            for (int64_t after = b + 1; after < blocks; after++) more |= stats[after].max != -INFINITY;
            if (stats[b].max == -INFINITY || (before + mass <= row->uniform * sum && more)) {
                before += mass;
                continue;
            }
            for (int64_t v = b * VOCAB_BLOCK; v < (b + 1) * VOCAB_BLOCK && v < a->V; v++) {
                double p = logits[v] == -INFINITY ? 0 : exact_exp((double)logits[v] - max);
                if (p > 0) row->token = (int32_t)v;
                before += p;
                if (p > 0 && before > row->uniform * sum) break;
            }
            break;
        }
        row->logprob = (float)(((double)logits[row->token] - max) - log_sum);
    }
    free(made);
}

void advance_reference(const Team *team, const AdvanceArgs *a) {
    ONLY_FIRST
    for (int64_t m = 0; m < a->M; m++) {
        DecodeRow *s = &a->state[m];
        if (s->ended) continue;
        int32_t kept = a->rows[m].kept ? a->rows[m].kept_count : 0;
        DrawRecord *record = record_at(a->record, a->kept_room, s->recorded++ % a->ring * a->M + m);
        *record = (DrawRecord){a->rows[m].token, a->rows[m].logprob, a->rows[m].entropy, kept};
        for (int32_t i = 0; kept <= a->kept_room && i < kept; i++) record_ids(record)[i] = a->rows[m].kept[i];
        s->length++;
        s->ended = s->length >= s->max_tokens || kept > a->kept_room;
        for (int i = 0; i < a->stop_count && !s->ignore_stop; i++) s->ended |= a->stop[i] == a->rows[m].token;
        if (s->ended || !a->tokens) continue;
        s->position++;
        a->tokens[m] = a->rows[m].token;
        a->position[m] = s->position;
        a->slot[m] = (int64_t)a->table[m * a->table_stride + s->position / PAGE] * PAGE + s->position % PAGE;
        a->rows[m].uniform = random_uniform(s->key, s->step, s->prompt, s->sample, (uint32_t)s->length);
    }
}

// ---- optimizer -------------------------------------------------------------------------------------------

void adamw_reference(const Team *team, const AdamwArgs *a) {
    ONLY_FIRST
    for (int64_t i = 0; i < a->count; i++) {
        float g = (a->gradient2 ? a->gradient[i] + a->gradient2[i] : a->gradient[i]) * a->scale;
        a->m[i] = a->beta1 * a->m[i] + (1.0f - a->beta1) * g;
        a->v[i] = a->beta2 * a->v[i] + (1.0f - a->beta2) * g * g;
        a->w[i] = a->w[i] * (1.0f - a->learning_rate * a->weight_decay) -
                  a->learning_rate / a->correction1 * a->m[i] / (sqrtf(a->v[i]) / sqrtf(a->correction2) + a->eps);
    }
}

void square_sum_reference(const Team *team, const SquareSumArgs *a) {
    ONLY_FIRST
    for (int64_t b = 0; b * NORM_BLOCK < a->count; b++) {
        double lanes[16] = {0};
        for (int64_t i = b * NORM_BLOCK; i < (b + 1) * NORM_BLOCK && i < a->count; i++) {
            double x = a->b ? a->a[i] + a->b[i] : a->a[i];
            lanes[i % 16] += x * x;
        }
        for (int width = 8; width; width /= 2)
            for (int i = 0; i < width; i++) lanes[i] += lanes[i + width];
        a->partial[b] = lanes[0];
    }
}
