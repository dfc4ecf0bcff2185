// A libnvidia-ml.so.1 of a server with eight V100: what nvidia-ml-py loads, where no driver is.
// Signatures and structures as in NVIDIA's nvml.h, as far as the probe calls them.
#include <stdio.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3 };
enum { GPUS = 8, LINKS = 6 };

typedef struct { unsigned long long total, free, used; } Memory;
typedef struct {
    char legacy[16];
    unsigned int domain, bus, device, pci_device, pci_subsystem;
    char bus_id[32];
} PciInfo;

static int places[GPUS];
// The other ends of each GPU's links: the hybrid cube mesh of tests/scan/recorded.py.
static const int ends[GPUS][LINKS] = {
    {1, 2, 3, 3, 4, 4}, {0, 2, 2, 3, 5, 5}, {0, 1, 1, 3, 3, 6}, {0, 0, 1, 2, 2, 7},
    {0, 0, 5, 6, 7, 7}, {1, 1, 4, 6, 6, 7}, {2, 4, 5, 5, 7, 7}, {3, 4, 4, 5, 6, 6},
};

static int index_of(void *gpu) { return *(int *)gpu; }

static void write_pci(int gpu, PciInfo *info) {
    memset(info, 0, sizeof *info);
    snprintf(info->bus_id, sizeof info->bus_id, "00000000:%02X:00.0", gpu + 1);
}

int nvmlInitWithFlags(unsigned int flags) { (void)flags; for (int i = 0; i < GPUS; i++) places[i] = i; return SUCCESS; }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { return code == NOT_SUPPORTED ? "Not Supported" : "Invalid Argument"; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = GPUS; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **gpu) { *gpu = &places[index]; return SUCCESS; }
int nvmlDeviceGetName(void *gpu, char *name, unsigned int length) {
    (void)gpu;
    snprintf(name, length, "Tesla V100-SXM2-16GB");
    return SUCCESS;
}
int nvmlDeviceGetMemoryInfo(void *gpu, Memory *memory) {
    (void)gpu;
    memory->total = 16160ULL << 20;
    memory->used = 4ULL << 20;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}
int nvmlDeviceGetPciInfo_v3(void *gpu, PciInfo *info) { write_pci(index_of(gpu), info); return SUCCESS; }
int nvmlDeviceGetMaxPcieLinkGeneration(void *gpu, unsigned int *value) { (void)gpu; *value = 3; return SUCCESS; }
int nvmlDeviceGetMaxPcieLinkWidth(void *gpu, unsigned int *value) { (void)gpu; *value = 16; return SUCCESS; }
int nvmlDeviceGetMigMode(void *gpu, unsigned int *now, unsigned int *later) {
    (void)gpu, (void)now, (void)later;
    return NOT_SUPPORTED;
}
int nvmlDeviceGetNumGpuCores(void *gpu, unsigned int *value) { (void)gpu; *value = 5120; return SUCCESS; }
int nvmlDeviceGetMaxClockInfo(void *gpu, unsigned int kind, unsigned int *value) {
    (void)gpu;
    *value = kind == 1 ? 1530 : 877;
    return SUCCESS;
}
int nvmlDeviceGetMemoryBusWidth(void *gpu, unsigned int *value) { (void)gpu; *value = 4096; return SUCCESS; }
int nvmlDeviceGetTopologyCommonAncestor(void *one, void *other, unsigned int *level) {
    *level = index_of(one) / 4 == index_of(other) / 4 ? 40 : 50;
    return SUCCESS;
}
int nvmlDeviceGetNvLinkState(void *gpu, unsigned int link, unsigned int *active) {
    (void)gpu;
    if (link >= LINKS) return INVALID_ARGUMENT;
    *active = 1;
    return SUCCESS;
}
int nvmlDeviceGetNvLinkRemotePciInfo_v2(void *gpu, unsigned int link, PciInfo *info) {
    if (link >= LINKS) return INVALID_ARGUMENT;
    write_pci(ends[index_of(gpu)][link], info);
    return SUCCESS;
}
int nvmlDeviceGetNvLinkRemoteDeviceType(void *gpu, unsigned int link, unsigned int *kind) {
    (void)gpu, (void)link;
    *kind = 0;
    return SUCCESS;
}
