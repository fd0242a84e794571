#include "interpose/packing.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "base/clock.h"
#include "base/log.h"
#include "commands.h"
#include "interpose/process.h"
#include "interpose/transfer.h"

namespace tide {
namespace {

// Of the time that a piece takes on the path, to look whether the worker has it already.
constexpr double kLookShareMax = 1.0 / 8;
constexpr double kNewest = 1.0 / 8;      // weight of the newest measurement
constexpr double kOutlier = 3;           // times the mean; more is a core that was taken away
constexpr double kForgotten = 1.0 / 16;  // of all of them, with each piece that was not looked at because of them

PackMode read_mode() {
  PackMode mode = PackMode::kAuto;
  const char* text = getenv("TIDE_COMPRESS");
  if (text != nullptr && !parse_pack_mode(text, &mode)) {
    log(LogLevel::kWarning, "TIDE_COMPRESS is off, auto or on, not '%s'; taken as auto", text);
  }
  return mode;
}

CUresult send_part(Stream& stream, const Packing::Part& part, command::CopyInPacked command,
                   std::span<const std::byte> data, uint64_t* sequence) {
  command.destination = part.to;
  command.pitch = part.pitch;
  command.width = part.width;
  command.height = part.height;
  command.bytes = data.size();
  return stream.vgpu->channel().send(
      {.call = Call::tideCopyInPacked,
       .context = stream.context->number.load(),
       .stream = stream.slot,
       .payload_bytes = uint32_t(command::kCopyInPackedDataOffset + data.size())},
      [&](std::byte* payload) {
        memcpy(payload, &command, sizeof command);
        if (!data.empty()) memcpy(payload + command::kCopyInPackedDataOffset, data.data(), data.size());
      },
      sequence);
}

}  // namespace

PackMode pack_mode() {
  static const PackMode mode = read_mode();
  return mode;
}

Packing::Plan Packing::plan(PackMode mode, Channel& channel, uint64_t bytes) {
  const PackChoice::Path path = channel.path();
  if (mode == PackMode::kAuto && !path.slow()) return {};
  const std::lock_guard lock(lock_);
  const bool pays = look_ns_per_byte_ * double(path.bytes_per_s) / 1e9 < kLookShareMax;
  // What was measured may have been bad luck: a core that was taken away.
  if (!pays) look_ns_per_byte_ += (kLookNsPerByte - look_ns_per_byte_) * kForgotten;
  return {choice_.wants(mode, bytes, path), bytes >= kContentBytesMin && (mode == PackMode::kOn || pays)};
}

Packing::Buffers* Packing::take_buffers() {
  for (Buffers& buffers : buffers_) {
    if (buffers.taken.exchange(true, std::memory_order_acquire)) continue;
    if (buffers.plain == nullptr) buffers.plain.reset(new std::byte[kPackedPieceMax]);
    return &buffers;
  }
  return nullptr;
}

// Null: the worker keeps nothing, or another one, from a checkpoint, might not.
std::shared_ptr<ContentIndex> Packing::contents(Channel& channel) {
  if (channel.is_protected()) return nullptr;
  const uint64_t slots = channel.region().worker().content_slots.load(std::memory_order_acquire);
  const std::lock_guard lock(lock_);
  if (contents_ == nullptr && slots != 0) {
    contents_ = std::make_shared<ContentIndex>(uint32_t(std::min<uint64_t>(slots, kContentSlotsMax)));
  }
  return contents_;
}

void Packing::forget() {
  const std::lock_guard lock(lock_);
  contents_.reset();
}

// Copies the part, and says what it holds.
ContentKey Packing::look(Buffers& buffers, const Part& part, const ContentIndex* index) {
  const uint64_t begin = now_ns();
  pack_rows(buffers.plain.get(), {part.from, part.from_pitch}, part.width, part.height);
  if (index == nullptr) return {};
  const ContentKey key = index->key_of(buffers.plain.get(), part.bytes());
  looked(double(now_ns() - begin) / double(part.bytes()));
  return key;
}

void Packing::looked(double ns_per_byte) {
  const std::lock_guard lock(lock_);
  look_ns_per_byte_ += kNewest * (std::min(ns_per_byte, kOutlier * look_ns_per_byte_) - look_ns_per_byte_);
}

bool Packing::send(Stream& stream, const Part& part, CUresult* result, uint64_t* sequence) {
  Channel& channel = stream.vgpu->channel();
  const PackMode mode = pack_mode();
  if (mode == PackMode::kOff || part.bytes() < kPackedPieceMin || channel.shares_host_memory()) return false;
  const Plan plan = this->plan(mode, channel, part.bytes());
  if (!plan) return false;
  Buffers* const buffers = take_buffers();
  if (buffers == nullptr) return false;
  const std::shared_ptr<ContentIndex> index = plan.keep ? contents(channel) : nullptr;
  const ContentKey key = look(*buffers, part, index.get());
  if (const uint32_t slot = index != nullptr ? index->use(key) : kNoContent; slot != kNoContent) {
    *result = send_kept(stream, part, key, slot, sequence);
    index->give_back(slot);
  } else {
    *result = send_new(stream, part, *buffers, plan.pack, index.get(), key, sequence);
  }
  buffers->taken.store(false, std::memory_order_release);
  return true;
}

CUresult Packing::send_kept(Stream& stream, const Part& part, const ContentKey& key, uint32_t slot,
                            uint64_t* sequence) {
  command::CopyInPacked command{};
  command.form = uint32_t(PackForm::kKept);
  command.slot = slot;
  command.key_low = key.low;
  command.key_high = key.high;
  const CUresult result = send_part(stream, part, command, {}, sequence);
  if (result != CUDA_SUCCESS) return result;
  ClientCounters& counters = stream.vgpu->channel().counters();
  counters.saved_in.fetch_add(part.bytes(), std::memory_order_relaxed);
  counters.kept_in.fetch_add(part.bytes(), std::memory_order_relaxed);
  return result;
}

CUresult Packing::send_new(Stream& stream, const Part& part, Buffers& buffers, bool pack, ContentIndex* index,
                           const ContentKey& key, uint64_t* sequence) {
  std::span<const std::byte> data;
  if (pack) {
    const uint64_t begin = now_ns();
    data = buffers.packer.pack(buffers.plain.get(), uint32_t(part.bytes()));
    const uint64_t took = now_ns() - begin;
    const std::lock_guard lock(lock_);
    choice_.tried(part.bytes(), data.size(), took);
  }
  command::CopyInPacked command{};
  command.form = uint32_t(data.empty() ? PackForm::kPlain : PackForm::kPacked);
  if (data.empty()) data = {buffers.plain.get(), part.bytes()};
  command.slot = index != nullptr ? index->claim() : kNoContent;
  command.key_low = key.low;
  command.key_high = key.high;
  const CUresult result = send_part(stream, part, command, data, sequence);
  const uint64_t saved = part.bytes() - data.size();
  if (result == CUDA_SUCCESS && saved != 0) {
    stream.vgpu->channel().counters().saved_in.fetch_add(saved, std::memory_order_relaxed);
  }
  if (command.slot == kNoContent) return result;
  if (result == CUDA_SUCCESS) {
    index->keep(command.slot, key);
  } else {
    index->drop(command.slot);
  }
  return result;
}

}  // namespace tide
