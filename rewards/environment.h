// Environments inside of a worker: looking at scripts, and one call of one.
#ifndef RECKON_ENVIRONMENT_H
#define RECKON_ENVIRONMENT_H
#include "message.h"
#include "score.h"

// Runs each script's file scope. A script that fails there is neither of groups nor an environment. Free with look_free.
void scripts_look(const ScoreScripts *scripts, ScriptsLook *out);
// Calls the script; *data and *said are JSON texts in `memory`, or NULL.
void environment_call(const ScoreScripts *scripts, int script, const EnvironmentCall *call, EnvironmentReply *out, Buf memory[2]);

#endif
