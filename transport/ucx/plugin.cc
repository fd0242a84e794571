#include "transport/ucx/plugin.h"

#include "transport/ucx/carrier.h"
#include "transport/ucx/stream.h"

namespace tide {
namespace {

const UcxPlugin plugin{kUcxPluginVersion,  UcxWorker::prepare, UcxCarrier::connect,
                       UcxCarrier::listen, ucx_listen_stream,  ucx_connect_stream};

}  // namespace
}  // namespace tide

extern "C" __attribute__((visibility("default"))) const tide::UcxPlugin* tide_ucx_plugin() { return &tide::plugin; }
