#pragma once

// What joins two vGPUs, or a vGPU and the host, in stream order: a point is marked in one stream, another stream (or
// the same) is held until a signal, and the service thread carries out what lies between.

#include "interpose/process.h"
#include "interpose/service.h"
#include "interpose/sharing.h"

namespace tide {

// After everything that is on the stream now (and what it implicitly waits for).
CUresult mark(Stream& stream, Point* point);
// Everything that comes on the stream later waits for the signal.
CUresult hold(Stream& stream, SignalPoint* signal);
// The hidden, non-blocking stream of a vGPU on which copies between vGPUs run.
CUresult copy_stream(Process& process, Vgpu& vgpu, Stream** stream);

CUresult make_event(Process& process, Context& context, uint32_t flags, Event** event);
CUresult record(Event& event, Stream& stream, uint32_t flags);
// Events of several processes (CU_EVENT_INTERPROCESS). Their last record may be another process's, so the worker is
// asked for it; record() returns when it is there for all to see.
inline bool between_processes(const Event& event) { return (event.flags & CU_EVENT_INTERPROCESS) != 0; }
CUresult share_event(Event& event);
CUresult open_event(Process& process, Context& context, const SharedHandle& handle, Event** event);
// *pending: the last record is not complete; event.recorded is the sequence of the event's word that says when.
CUresult watch(Event& event, bool* pending, bool* recorded_here = nullptr);

// The stream waits for the event's last record, wherever that is.
CUresult wait_for(Process& process, Stream& stream, Event& event);

}  // namespace tide
