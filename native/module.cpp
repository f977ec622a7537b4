// Functions for Python beside the networks. mirrorchat/hardware/native.py loads this library through ctypes.

#include <sys/syscall.h>
#include <unistd.h>

#include "team.h"

using mirrorchat::Team;

extern "C" {

// Requests the tile registers from the kernel. Returns 0, or -1 if the kernel refuses.
int native_open() {
#ifdef __AMX_TILE__
    constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0 ? 0 : -1;
#else
    return 0;
#endif
}

// Returns null if the system has no more threads.
Team* team_create(int size) {
    try {
        return new Team(size);
    } catch (...) {
        return nullptr;
    }
}

void team_destroy(Team* team) { delete team; }
}
