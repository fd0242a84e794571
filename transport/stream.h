#pragma once

// A reliable stream of bytes between two servers, over UCX: what a worker uses to send a vGPU's memory to another
// worker. Both ends live in the plugin libtideucx.so, which is loaded at the first call. A stream authenticates
// nobody: its user's first bytes must. Bandwidth matters here, latency does not.
//
// Threads: one thread may send while another receives on the same stream; two senders or two receivers may not.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/outcome.h"

namespace tide {

class ByteStream {
 public:
  virtual ~ByteStream() = default;  // closes

  // Returns when all bytes are on their way and `data` may be used again; not when the far side has them. Fails when
  // the far side is gone or has not taken anything for `timeout_ms`; the stream is of no use after that.
  virtual Outcome send(const void* data, size_t bytes, uint32_t timeout_ms = 30'000) = 0;
  // Exactly `bytes`. Fails at the end of the stream (the far side closed), and when nothing came for `timeout_ms`.
  virtual Outcome receive(void* data, size_t bytes, uint32_t timeout_ms = 30'000) = 0;
  // Waits until the far side has taken all that was sent (at most `timeout_ms`).
  virtual Outcome flush(uint32_t timeout_ms = 30'000) = 0;
  // What is under way fails at once, and so does all that comes later. Any thread.
  virtual void cancel() = 0;
  // Flushes shortly and ends both directions. Idempotent.
  virtual void close() = 0;
};

class StreamListener {
 public:
  virtual ~StreamListener() = default;  // stops listening; accepted streams live on
  // Waits at most `timeout_ms` for the next connection; fails on time-out.
  virtual Outcome accept(uint32_t timeout_ms, std::unique_ptr<ByteStream>* stream) = 0;
};

// *address: in, the interface to listen on ("" means TIDE_UCX_BIND, else 127.0.0.1; a port may follow); out, what
// connect_stream takes. *refused: set where the machine answers, but nobody listens there.
Outcome listen_stream(std::string* address, std::unique_ptr<StreamListener>* listener);
Outcome connect_stream(const std::string& address, uint32_t timeout_ms, std::unique_ptr<ByteStream>* stream,
                       bool* refused = nullptr);

}  // namespace tide
