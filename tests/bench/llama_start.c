/* llama.cpp from process start to the first token, without Python: loads a GGUF, computes a prompt, prints the likeliest
   next token. Compiled by tests/bench/run against the library of the peers' environment.

       llama_start MODEL THREADS PROMPT */
#include <llama.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void silent(enum ggml_log_level level, const char *text, void *data) { (void)level, (void)text, (void)data; }

static int fatal(const char *what) {
    fprintf(stderr, "llama_start: %s\n", what);
    return 1;
}

int main(int argc, char **argv) {
    enum { PROMPT_LIMIT = 512 };
    if (argc != 4) return fatal("expected MODEL THREADS PROMPT");
    llama_log_set(silent, NULL);
    llama_backend_init();
    struct llama_model *model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (!model) return fatal("can't load the model");
    const struct llama_vocab *vocab = llama_model_get_vocab(model);
    llama_token tokens[PROMPT_LIMIT];
    int count = llama_tokenize(vocab, argv[3], (int)strlen(argv[3]), tokens, PROMPT_LIMIT, true, false);
    if (count <= 0) return fatal("can't tokenize the prompt");
    struct llama_context_params settings = llama_context_default_params();
    settings.n_ctx = PROMPT_LIMIT;
    settings.n_batch = settings.n_ubatch = PROMPT_LIMIT;
    settings.n_threads = settings.n_threads_batch = atoi(argv[2]);
    settings.no_perf = true;
    struct llama_context *context = llama_init_from_model(model, settings);
    if (!context) return fatal("can't make a context");
    if (llama_decode(context, llama_batch_get_one(tokens, count)) != 0) return fatal("can't decode");
    const float *logits = llama_get_logits_ith(context, -1);
    int best = 0;
    for (int i = 1; i < llama_vocab_n_tokens(vocab); i++)
        if (logits[i] > logits[best]) best = i;
    char piece[256];
    int length = llama_token_to_piece(vocab, best, piece, (int)sizeof piece, 0, false);
    if (length <= 0) return fatal("the token has no text");
    printf("%.*s\n", length, piece);
    fflush(stdout);
    llama_free(context);
    llama_model_free(model);
    return 0;
}
