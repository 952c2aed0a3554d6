// An endpoint as an arm of a comparison: held-out items answered by another program's model, over HTTP, into the same Evaluation that
// a model of ours fills. In a chat the recipe's words ask for thinking or for a direct answer; otherwise the plain prompt is continued.
#ifndef RECKON_EVALUATE_ENDPOINT_H
#define RECKON_EVALUATE_ENDPOINT_H
#include "endpoint.h"
#include "rl.h"

typedef struct EndpointAnswers { // of one evaluation
    int asked, failed;
    char problem[480]; // of the first that failed
} EndpointAnswers;

// Greedy is temperature 0. Tokens are those that the endpoint counts. Some requests may fail: their draws are unanswered, and wrong.
// Where none of the first levels' is answered, the evaluation fails. Environments and joules aren't for endpoints.
bool evaluate_endpoint(Endpoint *endpoint, const Recipe *r, const Tasks *t, RewardPool *rewards, const EvaluateOptions *o, Evaluation *out,
                       EndpointAnswers *answers, Err *err) MUST_CHECK;
// As evaluate_latency; requests that fail have no time.
bool endpoint_latency(Endpoint *endpoint, const Recipe *r, const Tasks *t, const EvaluateOptions *o, int count, double *seconds, int *measured,
                      Err *err) MUST_CHECK;
// What an answer reads as where a model of ours would have written it: thinking, "</think>", answer. *text is new, the caller's.
void endpoint_completion(const EndpointAnswer *a, Mode mode, bool chat, Buf *text);

#endif
