// What Python calls besides the two networks: see mirrorchat/hardware/native.py, which loads this library through ctypes.

#include <sys/syscall.h>
#include <unistd.h>

#include "team.h"

using mirrorchat::Team;

extern "C" {

// Asks the kernel for the tile registers, which a process has only after asking. Returns 0, or -1 when it may not.
int native_open() {
#ifdef __AMX_TILE__
    constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0 ? 0 : -1;
#else
    return 0;
#endif
}

// Null if the system gives no more threads.
Team* team_create(int size) {
    try {
        return new Team(size);
    } catch (...) {
        return nullptr;
    }
}

void team_destroy(Team* team) { delete team; }
}
