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
 *   3 link 0 1        NVLink joins device 3 with devices 0 and 1
 *   3 mig 1g.10gb -   device 3 is in MIG mode, with an instance at place 0 and none at place 1
 *   3 plain 1         device 3's instances have its name alone, as with older drivers
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

/* A device is its index + 1; a MIG instance is 1000 * (its device's index + 1) + its place + 1. */
static int index_of(nvmlDevice_t device) {
    int h = (int)(intptr_t)device.handle;
    return (h >= 1000 ? h / 1000 : h) - 1;
}

static int place_of(nvmlDevice_t device) {
    int h = (int)(intptr_t)device.handle;
    return h >= 1000 ? h % 1000 - 1 : -1;
}

/* Finds word number n of the value of a device's key. Returns 1 if there is one. */
static int word(int device, const char *key, int n, char *out, size_t size) {
    char value[200], *rest = value, *w;
    if (!state(device, key, value, sizeof value)) return 0;
    while ((w = strtok_r(rest, " ", &rest)))
        if (n-- == 0) {
            snprintf(out, size, "%s", w);
            return 1;
        }
    return 0;
}

/* The profile of a MIG instance, "" if there is none at that place. */
static const char *profile(nvmlDevice_t device, char *out, size_t size) {
    if (!word(index_of(device), "mig", place_of(device), out, size) || strcmp(out, "-") == 0) out[0] = 0;
    return out;
}

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
    if (place_of(device) < 0) {
        snprintf(uuid, length, "GPU-00000000-0000-4000-8000-%012d", index_of(device));
    } else { /* another profile is another instance */
        char p[32];
        int sum = 0;
        for (const char *c = profile(device, p, sizeof p); *c; c++) sum = sum * 31 % 10007 + *c;
        snprintf(uuid, length, "MIG-%08d-%04d-5000-8000-%012d", index_of(device), place_of(device), sum);
    }
    return ret;
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length) {
    char p[32];
    if (!state(index_of(device), "name", name, length)) snprintf(name, length, "NVIDIA H100 80GB HBM3");
    if (place_of(device) >= 0 && !number(index_of(device), "plain", 0))
        snprintf(name + strlen(name), length - strlen(name), " MIG %s", profile(device, p, sizeof p));
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

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending) {
    char value[200];
    *current = *pending = state(index_of(device), "mig", value, sizeof value);
    return reach(device);
}

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned int *count) {
    *count = 7;
    return reach(device);
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index, nvmlDevice_t *instance) {
    char p[32];
    *(intptr_t *)instance = 1000 * (index_of(device) + 1) + index + 1;
    nvmlReturn_t ret = reach(device);
    if (ret == NVML_SUCCESS && !profile(*instance, p, sizeof p)[0]) return NVML_ERROR_NOT_FOUND;
    return ret;
}

/* Profiles are "1g.10gb" or "1c.3g.40gb"; an instance has a little less memory than it is called by. */
nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t device, nvmlDeviceAttributes_t *attributes) {
    char p[32];
    unsigned int compute, slices, gb;
    memset(attributes, 0, sizeof *attributes);
    profile(device, p, sizeof p);
    if (sscanf(p, "%uc.%ug.%ugb", &compute, &slices, &gb) != 3) {
        if (sscanf(p, "%ug.%ugb", &slices, &gb) != 2) return NVML_ERROR_NOT_FOUND;
        compute = slices;
    }
    attributes->computeInstanceSliceCount = compute;
    attributes->gpuInstanceSliceCount = slices;
    attributes->memorySizeMB = gb * 1024 - 256;
    return reach(device);
}

static int linked(int a, int b) {
    char w[16];
    for (int n = 0; word(a, "link", n, w, sizeof w); n++)
        if (atoi(w) == b) return 1;
    return 0;
}

nvmlReturn_t nvmlDeviceGetP2PStatus(nvmlDevice_t a, nvmlDevice_t b, nvmlGpuP2PCapsIndex_t what, nvmlGpuP2PStatus_t *status) {
    int yes = what == NVML_P2P_CAPS_INDEX_NVLINK && (linked(index_of(a), index_of(b)) || linked(index_of(b), index_of(a)));
    *status = yes ? NVML_P2P_STATUS_OK : NVML_P2P_STATUS_NOT_SUPPORTED;
    return reach(a);
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    nvmlDeviceAttributes_t attributes;
    memory->total = 81559ULL << 20;
    if (place_of(device) >= 0) {
        if (nvmlDeviceGetAttributes_v2(device, &attributes) != NVML_SUCCESS) return NVML_ERROR_NOT_FOUND;
        memory->total = attributes.memorySizeMB << 20;
    }
    memory->used = (unsigned long long)(index_of(device) + 1) << 30;
    memory->free = memory->total - memory->used;
    return reach(device);
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilization) {
    int util = number(index_of(device), "util", -1);
    if (util < 0 || place_of(device) >= 0) return NVML_ERROR_NOT_SUPPORTED;
    utilization->gpu = util;
    utilization->memory = util / 2;
    return reach(device);
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *milliwatts) {
    *milliwatts = 123456;
    if (place_of(device) >= 0) return NVML_ERROR_NOT_SUPPORTED;
    return reach(device);
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, nvmlTemperatureSensors_t sensor, unsigned int *celsius) {
    *celsius = 41;
    return sensor == NVML_TEMPERATURE_GPU ? reach(device) : NVML_ERROR_INVALID_ARGUMENT;
}
#endif
