/* As much of NVML as XLA asks before it takes a GPU: it starts, and knows nothing. Found last, so a real one goes first. */
enum { kSuccess = 0, kNotSupported = 3 };

int nvmlInit(void) { return kSuccess; }
int nvmlInit_v2(void) { return kSuccess; }
int nvmlShutdown(void) { return kSuccess; }
const char* nvmlErrorString(int code) { return code == kSuccess ? "success" : "not supported"; }
int nvmlSystemGetDriverVersion(char* text, unsigned length) { return kNotSupported; }
int nvmlDeviceGetHandleByPciBusId_v2(const char* id, void** device) { return kNotSupported; }
