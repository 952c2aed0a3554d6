// cuBLASLt for gradients of weights, the one product that may go to a library: its sum over a segment's tokens is seen by
// nobody but the gradient, so it only has to be the same each time (matmul_grad.cu says when it is used). For all others too where
// the device was opened to choose freely, which shows what it costs that no bit depends on the number of rows: then the library may
// take any algorithm for each shape.
//
// The same each time: the algorithm is asked for once per (N, K, row lengths), for a fixed number of tokens, and kept, so
// that neither another number of tokens nor the order of calls changes it; it takes no workspace and no reduction between
// blocks (no split along tokens), sums in fp32, and adds to dw with beta = 1, or writes it with beta = 0.
// The library and the few types of its interface that are used here are looked up by name at run time, so that the same
// binary runs without it. The numbers below are those of its public header, the same in versions 12 and 13.
#include "cublas.h"
#include <stdio.h>
#include <stdlib.h>
#ifndef RECKON_CUDA_EMULATION
#include <dlfcn.h>
#endif

typedef struct Algorithm {
    uint64_t data[8];
} Algorithm;
typedef struct Heuristic {
    Algorithm algorithm;
    size_t workspace_bytes;
    int state; // 0: the rest is valid
    float waves;
    int reserved[4];
} Heuristic;
enum {
    TYPE_F32 = 0,
    TYPE_BF16 = 14,
    COMPUTE_F32 = 68,
    TRANSPOSE = 1,
    MATMUL_TRANSPOSE_A = 3,        // int32
    MATMUL_TRANSPOSE_B = 4,        // int32
    PREFERENCE_WORKSPACE = 1,      // uint64
    PREFERENCE_REDUCTION_MASK = 3, // uint32; 0: none
    PREFERENCE_ALIGNMENT_A = 5,    // uint32, also B, C, D: 5 to 8
    ALGORITHM_SPLIT = 2,           // uint32
    ALGORITHM_REDUCTION = 3,       // uint32
};
typedef struct Library {
    int (*create)(void **handle);
    int (*destroy)(void *handle);
    size_t (*get_version)(void);
    int (*matmul_create)(void **matmul, int compute, int scale_type);
    int (*matmul_set)(void *matmul, int attribute, const void *value, size_t bytes);
    int (*matmul_destroy)(void *matmul);
    int (*layout_create)(void **layout, int type, uint64_t rows, uint64_t columns, int64_t stride);
    int (*layout_destroy)(void *layout);
    int (*preference_create)(void **preference);
    int (*preference_set)(void *preference, int attribute, const void *value, size_t bytes);
    int (*preference_destroy)(void *preference);
    int (*heuristic)(void *handle, void *matmul, void *a, void *b, void *c, void *d, void *preference, int wanted,
                     Heuristic *results, int *found);
    int (*algorithm_get)(const Algorithm *algorithm, int attribute, void *value, size_t bytes, size_t *written);
    int (*multiply)(void *handle, void *matmul, const void *alpha, const void *a, void *a_layout, const void *b, void *b_layout,
                    const void *beta, const void *c, void *c_layout, void *d, void *d_layout, const Algorithm *algorithm,
                    void *workspace, size_t workspace_bytes, cudaStream_t stream);
} Library;

// D = A B^T or A^T B, columns first as the library counts; equal ones have the same algorithm. No padding: compared as bytes.
typedef struct Matrix {
    int64_t rows, columns, ld;
} Matrix;
typedef struct Asked {
    Matrix a, b, d;
    int64_t d_type;
    int64_t free; // A^T B, by any algorithm; otherwise A B^T, by one that adds in one pass
} Asked;
typedef struct Choice {
    Asked asked;
    bool found;
    Algorithm algorithm;
} Choice;
enum { CHOICES = 256, CANDIDATES = 16, TYPICAL_TOKENS = 8192 };

struct CublasLt {
    Library library;
    void *file; // of dlopen
    void *handle;
    void *with_transpose[2]; // descriptors: of A, of B
    char version[48];
    int count;
    Choice choices[CHOICES]; // one per shape of a model's matrices; beyond that the last place is asked for anew
};

// ---- the library -----------------------------------------------------------------------------------------
static void *symbol(void *file, const char *name) {
#ifdef RECKON_CUDA_EMULATION
    (void)file;
    return emulation_symbol("cublasLt", name);
#else
    return dlsym(file, name);
#endif
}
static void *library_file(void) {
#ifdef RECKON_CUDA_EMULATION
    return NULL;
#else
    static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"};
    void *file = NULL;
    for (int i = 0; i < COUNT(names) && !file; i++) file = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    return file;
#endif
}
static void library_release(void *file) {
#ifndef RECKON_CUDA_EMULATION
    if (file) dlclose(file);
#else
    (void)file;
#endif
}

template <typename F> static bool look_up(void *file, const char *name, F *function) {
    *function = (F)symbol(file, name);
    return *function != NULL;
}
static bool library_look_up(void *file, Library *l) {
    return look_up(file, "cublasLtCreate", &l->create) && look_up(file, "cublasLtDestroy", &l->destroy) &&
           look_up(file, "cublasLtGetVersion", &l->get_version) && look_up(file, "cublasLtMatmulDescCreate", &l->matmul_create) &&
           look_up(file, "cublasLtMatmulDescSetAttribute", &l->matmul_set) &&
           look_up(file, "cublasLtMatmulDescDestroy", &l->matmul_destroy) &&
           look_up(file, "cublasLtMatrixLayoutCreate", &l->layout_create) &&
           look_up(file, "cublasLtMatrixLayoutDestroy", &l->layout_destroy) &&
           look_up(file, "cublasLtMatmulPreferenceCreate", &l->preference_create) &&
           look_up(file, "cublasLtMatmulPreferenceSetAttribute", &l->preference_set) &&
           look_up(file, "cublasLtMatmulPreferenceDestroy", &l->preference_destroy) &&
           look_up(file, "cublasLtMatmulAlgoGetHeuristic", &l->heuristic) &&
           look_up(file, "cublasLtMatmulAlgoConfigGetAttribute", &l->algorithm_get) &&
           look_up(file, "cublasLtMatmul", &l->multiply);
}

// 120304 is 12.3.4, 130100 is 13.1.0.
static void version_write(CublasLt *blas) {
    size_t v = blas->library.get_version();
    snprintf(blas->version, sizeof blas->version, "cuBLASLt %zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
}

bool cublas_open(CudaContext *context, Err *err) {
    context->blas = NULL;
    Library library = {};
    void *file = library_file();
    if (!library_look_up(file, &library)) {
        library_release(file);
        return true;
    }
    CublasLt *blas = (CublasLt *)xcalloc(1, sizeof *blas);
    blas->library = library;
    blas->file = file;
    context->blas = blas;
    version_write(blas);
    const int32_t transpose = TRANSPOSE;
    int status = library.create(&blas->handle);
    for (int i = 0; i < 2 && !status; i++) {
        status = library.matmul_create(&blas->with_transpose[i], COMPUTE_F32, TYPE_F32);
        if (!status) status = library.matmul_set(blas->with_transpose[i], i ? MATMUL_TRANSPOSE_B : MATMUL_TRANSPOSE_A, &transpose, sizeof transpose);
    }
    if (!status) return true;
    fail(err, ERR_UNAVAILABLE, blas->version, "the library was found, but answered %d when it was opened for the device", status);
    cublas_close(context);
    return false;
}

void cublas_close(CudaContext *context) {
    CublasLt *blas = context->blas;
    if (!blas) return;
    for (int i = 0; i < 2; i++)
        if (blas->with_transpose[i]) blas->library.matmul_destroy(blas->with_transpose[i]);
    if (blas->handle) blas->library.destroy(blas->handle);
    library_release(blas->file);
    free(blas);
    context->blas = NULL;
}

const char *cublas_version(const CudaContext *context) { return context->blas ? context->blas->version : NULL; }

// ---- products --------------------------------------------------------------------------------------------
typedef struct Layouts {
    void *a, *b, *d;
} Layouts;
static bool layout_create(const Library *l, int64_t type, const Matrix *m, void **layout) {
    return !l->layout_create(layout, (int)type, (uint64_t)m->rows, (uint64_t)m->columns, m->ld);
}
static bool layouts_create(const Library *l, const Asked *asked, Layouts *layouts) {
    return layout_create(l, TYPE_BF16, &asked->a, &layouts->a) && layout_create(l, TYPE_BF16, &asked->b, &layouts->b) &&
           layout_create(l, asked->d_type, &asked->d, &layouts->d);
}
static void layouts_destroy(const Library *l, const Layouts *layouts) {
    if (layouts->a) l->layout_destroy(layouts->a);
    if (layouts->b) l->layout_destroy(layouts->b);
    if (layouts->d) l->layout_destroy(layouts->d);
}
static void *descriptor(const CublasLt *blas, const Asked *asked) { return blas->with_transpose[asked->free ? 0 : 1]; }

static bool preference_limit(const Library *l, void *preference, bool free) {
    const uint64_t workspace = free ? CUDA_SCRATCH : 0;
    const uint32_t reduction = 0, alignment = 16;
    bool ok = !l->preference_set(preference, PREFERENCE_WORKSPACE, &workspace, sizeof workspace) &&
              (free || !l->preference_set(preference, PREFERENCE_REDUCTION_MASK, &reduction, sizeof reduction));
    for (int i = 0; ok && i < 4; i++) ok = !l->preference_set(preference, PREFERENCE_ALIGNMENT_A + i, &alignment, sizeof alignment);
    return ok;
}
static bool adds_in_one_pass(const Library *l, const Heuristic *h) {
    uint32_t split = 0, reduction = 1;
    size_t written;
    return h->workspace_bytes == 0 &&
           !l->algorithm_get(&h->algorithm, ALGORITHM_SPLIT, &split, sizeof split, &written) && split <= 1 &&
           !l->algorithm_get(&h->algorithm, ALGORITHM_REDUCTION, &reduction, sizeof reduction, &written) && reduction == 0;
}
// The first algorithm that the library proposes and that keeps the rules.
static void choose(CublasLt *blas, Choice *choice) {
    const Library *l = &blas->library;
    const Asked *asked = &choice->asked;
    Layouts layouts = {};
    void *preference = NULL;
    Heuristic results[CANDIDATES];
    int found = 0;
    if (layouts_create(l, asked, &layouts) && !l->preference_create(&preference) && preference_limit(l, preference, asked->free) &&
        !l->heuristic(blas->handle, descriptor(blas, asked), layouts.a, layouts.b, layouts.d, layouts.d, preference, CANDIDATES, results, &found))
        for (int i = 0; i < found && !choice->found; i++)
            if (results[i].state == 0 && (asked->free ? results[i].workspace_bytes <= CUDA_SCRATCH : adds_in_one_pass(l, &results[i])))
                choice->found = true, choice->algorithm = results[i].algorithm;
    if (preference) l->preference_destroy(preference);
    layouts_destroy(l, &layouts);
}
static const Choice *choice_of(CublasLt *blas, const Asked *asked) {
    for (int i = 0; i < blas->count; i++)
        if (!memcmp(&blas->choices[i].asked, asked, sizeof *asked)) return &blas->choices[i];
    Choice *c = &blas->choices[blas->count < CHOICES ? blas->count++ : CHOICES - 1];
    *c = {*asked, false, {}};
    choose(blas, c);
    return c;
}
// By the algorithm of `choice`, whose shape may be another one; with a workspace where it is free.
static bool multiply(const CudaContext *context, const Choice *choice, const Asked *shape, const void *a, const void *b, void *d, bool adds) {
    const CublasLt *blas = context->blas;
    const Library *l = &blas->library;
    const float one = 1, beta = adds ? 1 : 0;
    Layouts layouts = {};
    bool ok = layouts_create(l, shape, &layouts) &&
              !l->multiply(blas->handle, descriptor(blas, shape), &one, a, layouts.a, b, layouts.b, &beta, d, layouts.d, d, layouts.d,
                           &choice->algorithm, shape->free ? context->scratch : NULL, shape->free ? CUDA_SCRATCH : 0, context->stream);
    layouts_destroy(l, &layouts);
    return ok;
}

// x is [K, T] as the library counts, dy [N, T], dw [K, N], so dw = x dy^T.
bool cublas_gradient(const CudaContext *context, const CublasGradient *g) {
    Asked shape = {{g->K, g->T, g->ldx}, {g->N, g->T, g->ldy}, {g->K, g->N, g->K}, TYPE_F32, false}, typical = shape;
    typical.a.columns = typical.b.columns = TYPICAL_TOKENS;
    const Choice *choice = context->blas ? choice_of(context->blas, &typical) : NULL;
    return choice && choice->found && multiply(context, choice, &shape, g->x, g->dy, g->dw, !g->written);
}

// w is [K, N] as the library counts, x [K, M], y [N, M], so y = w^T x.
bool cublas_product(const CudaContext *context, const MatmulArgs *m) {
    bool act = m->store == STORE_ACT;
    bool aligned = ((uintptr_t)m->x | (uintptr_t)m->w | (uintptr_t)m->y) % 16 == 0 && m->ldx % 8 == 0 && m->ldy % (act ? 8 : 4) == 0;
    if (m->dtype != DTYPE_BF16 || m->bias || m->products.count || !aligned) return false;
    Asked shape = {{m->K, m->N, packed_stride(m->K)}, {m->K, m->M, m->ldx}, {m->N, m->M, m->ldy}, act ? TYPE_BF16 : TYPE_F32, true};
    const Choice *choice = choice_of(context->blas, &shape);
    return choice->found && multiply(context, choice, &shape, m->w, m->x, m->y, m->store == ADD_F32);
}
