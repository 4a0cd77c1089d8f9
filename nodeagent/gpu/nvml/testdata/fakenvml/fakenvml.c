/* An NVML for tests: enough of libnvidia-ml.so.1 for Gangline's probe, driven by a text file.
 *
 * The file named by FAKE_NVML_STATE is read again on each call, so a test changes a GPU while the agent runs:
 *   gpus 8            number of devices
 *   init_fail 9       nvmlInit returns this code
 *   init_hang 1       nvmlInit never returns
 *   3 name NVIDIA L4  product of device 3; without it NVIDIA H100 80GB HBM3
 *   3 util 97         utilisation in percent; without it "not supported"
 *   3 lost 1          every call for device 3 returns GPU_IS_LOST
 *   3 gone 1          device 3 cannot be opened
 *   3 hang 1          calls that reach device 3 never return
 *   3 die 1           calls that reach device 3 end the process like a missing symbol does
 * Built with -DOLD_DRIVER it leaves out all but the oldest functions.
 */
#include "nvml.h"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Finds "KEY VALUE" (device < 0) or "DEVICE KEY VALUE"; the last line wins. Returns 1 if found. */
static int state(int device, const char *key, char *value, size_t size) {
    const char *path = getenv("FAKE_NVML_STATE");
    FILE *f = path ? fopen(path, "r") : NULL;
    char line[256], want[64];
    int found = 0;
    if (!f) return 0;
    if (device < 0) snprintf(want, sizeof want, "%s ", key);
    else snprintf(want, sizeof want, "%d %s ", device, key);
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        if (strncmp(line, want, strlen(want)) == 0) {
            snprintf(value, size, "%s", line + strlen(want));
            found = 1;
        }
    }
    fclose(f);
    return found;
}

static int number(int device, const char *key, int otherwise) {
    char value[32];
    return state(device, key, value, sizeof value) ? atoi(value) : otherwise;
}

static int index_of(nvmlDevice_t device) { return (int)(intptr_t)device.handle - 1; }

/* What every call that reaches a device goes through. */
static nvmlReturn_t reach(nvmlDevice_t device) {
    int i = index_of(device);
    while (number(i, "hang", 0)) usleep(10000);
    if (number(i, "die", 0)) {
        fprintf(stderr, "gangline: symbol lookup error: undefined symbol: nvmlFromTheFuture\n");
        _exit(127);
    }
    return number(i, "lost", 0) ? NVML_ERROR_GPU_IS_LOST : NVML_SUCCESS;
}

nvmlReturn_t nvmlInit_v2(void) {
    while (number(-1, "init_hang", 0)) usleep(10000);
    return number(-1, "init_fail", NVML_SUCCESS);
}

nvmlReturn_t nvmlShutdown(void) { return NVML_SUCCESS; }

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count) {
    *count = number(-1, "gpus", 0);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device) {
    if (number(index, "gone", 0)) return NVML_ERROR_GPU_IS_LOST;
    *(intptr_t *)device = index + 1;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length) {
    nvmlReturn_t ret = reach(device);
    snprintf(uuid, length, "GPU-00000000-0000-4000-8000-%012d", index_of(device));
    return ret;
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length) {
    if (!state(index_of(device), "name", name, length)) snprintf(name, length, "NVIDIA H100 80GB HBM3");
    return reach(device);
}

#ifndef OLD_DRIVER
const char *nvmlErrorString(nvmlReturn_t result) {
    return result == NVML_ERROR_GPU_IS_LOST ? "GPU is lost" : "fake NVML error";
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length) {
    snprintf(version, length, "570.86.15");
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned int *minor) {
    *minor = index_of(device) + 10; /* not the index, so that a mix-up shows */
    return reach(device);
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci) {
    memset(pci, 0, sizeof *pci);
    pci->domain = 0xfe; /* no such bus in any test machine's sysfs */
    pci->bus = 0x3a + index_of(device);
    return reach(device);
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    memory->total = 81559ULL << 20;
    memory->used = (unsigned long long)(index_of(device) + 1) << 30;
    memory->free = memory->total - memory->used;
    return reach(device);
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilization) {
    int util = number(index_of(device), "util", -1);
    if (util < 0) return NVML_ERROR_NOT_SUPPORTED;
    utilization->gpu = util;
    utilization->memory = util / 2;
    return reach(device);
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *milliwatts) {
    *milliwatts = 123456;
    return reach(device);
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, nvmlTemperatureSensors_t sensor, unsigned int *celsius) {
    *celsius = 41;
    return sensor == NVML_TEMPERATURE_GPU ? reach(device) : NVML_ERROR_INVALID_ARGUMENT;
}
#endif
