#pragma once

// What joins two vGPUs, or a vGPU and the host, in stream order: a point is marked in one stream, another stream (or
// the same) is held until a signal, and the service thread carries out what lies between.

#include "interpose/process.h"
#include "interpose/service.h"

namespace tide {

// After everything that is on the stream now (and what it implicitly waits for).
CUresult mark(Stream& stream, Point* point);
// Everything that comes on the stream later waits for the signal.
CUresult hold(Stream& stream, SignalPoint* signal);
// The hidden, non-blocking stream of a vGPU on which copies between vGPUs run.
CUresult copy_stream(Process& process, Vgpu& vgpu, Stream** stream);

CUresult make_event(Process& process, Context& context, uint32_t flags, Event** event);
CUresult record(Event& event, Stream& stream, uint32_t flags);
// The stream waits for the event's last record, wherever that is.
CUresult wait_for(Process& process, Stream& stream, Event& event);

}  // namespace tide
