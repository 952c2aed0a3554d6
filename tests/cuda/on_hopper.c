// Linked into the programs cuda_hopper_*: the emulated machine is of compute capability 9.0. It runs before the machine is made up.
#include <stdlib.h>

__attribute__((constructor(101))) static void on_hopper(void) { setenv("RECKON_EMULATION_CAPABILITY", "90", 1); }
