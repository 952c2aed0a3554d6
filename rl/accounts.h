// Giving account of a run from its ledger alone: what it cost, whether its evidence holds, and its page. None of these
// needs a model or changes the run's folder but for the report itself.
#ifndef RECKON_ACCOUNTS_H
#define RECKON_ACCOUNTS_H
#include "rl.h"

// ---- energy.c --------------------------------------------------------------------------------------------
// The joules that the processor packages counted since energy_open (Linux powercap, "RAPL"). `folder` NULL is
// /sys/class/powercap, `clock` NULL the machine's seconds. Where no counter may be read, energy_joules gives NaN: not measured
// is not 0. Ask at least every two minutes: counters wrap around, and one that could have done so unseen is lost.
typedef struct Energy Energy;
Energy *energy_open(const char *folder, double (*clock)(void));
// From now on the joules of the policy's device count too, where it has a meter of its own, and those of the one before no longer (what
// they were stays in the sum); it must outlive later questions.
void energy_watch(Energy *e, const Policy *policy);
double energy_joules(Energy *e);
double energy_device_joules(Energy *e); // the devices' alone; NaN: none has a meter, or it isn't known
// Why the device's clock was held down since the call before, for a note; empty: it wasn't. Valid until the next call.
const char *energy_held(Energy *e);
void energy_close(Energy *e);
// What the clock and the meters say now, and what was taken since: {"seconds", and "joules", "device_joules" where they are known}, for
// a ledger's "measured". `e` NULL: the clock alone.
typedef struct EnergyMark {
    double seconds, joules, device_joules;
} EnergyMark;
EnergyMark energy_mark(Energy *e);
json_t *energy_spent(Energy *e, EnergyMark before);

// ---- cost.c ----------------------------------------------------------------------------------------------
// Sums over the ledger, work that was done twice counted too. The caller owns *out; its form is told in cost.c.
bool cost_run(const char *run_folder, json_t **out, Err *err) MUST_CHECK;
// A campaign: one run's folder, or every run below a folder (cost_campaign.c). Not for a process that holds a run's lock.
bool cost_campaign(const char *folder, json_t **out, Err *err) MUST_CHECK;
void cost_print(const json_t *cost);     // of a run, as a table, on stdout
void campaign_print(const json_t *cost); // of several

// ---- audit.c ---------------------------------------------------------------------------------------------
// Proves what can be proved of a run's folder: {"ok", "head", "step", "checks": [{"name", "ok", "found"}]}. False with
// ERR_FAILED and the first broken thing named if a check fails; *out is then set too. The caller owns it.
bool audit_run(const char *run_folder, json_t **out, Err *err) MUST_CHECK;

// ---- diagnose.c ------------------------------------------------------------------------------------------
// What is wrong with a run's training and what to change: {"stages": [{"name", "steps", "looked_at", "data": what
// rejection sampling kept and why not the rest, or null}], "findings": [{"stage",
// "symptom", "seen", "change"}]}. The caller owns *out.
bool diagnose_run(const char *run_folder, json_t **out, Err *err) MUST_CHECK;
void diagnose_print(const json_t *diagnosis); // in plain text, on stdout

// ---- report.c --------------------------------------------------------------------------------------------
typedef enum ReportFormat { REPORT_HTML, REPORT_MARKDOWN, REPORT_CSV, REPORT_JSON, REPORT_SVG } ReportFormat;
typedef struct ReportOptions {
    ReportFormat format;
    bool korean;
    int samples; // that a page holds at most
} ReportOptions;
enum { REPORT_SAMPLES = 2000, REPORT_MOST_SAMPLES = 20000 };
// A report of a run's folder or of a comparison's file, appended to `out`.
bool report_make(const char *source, const ReportOptions *o, Buf *out, Err *err) MUST_CHECK;
// Writes the page of a run, one self-contained file, aside and renamed. `path` NULL: RUN/report.html.
bool report_write(const char *run_folder, const char *path, Err *err) MUST_CHECK;

#endif
