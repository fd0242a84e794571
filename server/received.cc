#include "server/received.h"

#include "server/session.h"

namespace tide {

uint64_t Received::next_item() {
  uint64_t item = 0;
  if (header_.payload_bytes - at_ < sizeof(item)) {
    ok_ = false;
    return 0;
  }
  memcpy(&item, payload_ + at_, sizeof(item));
  at_ += sizeof(item);
  return item;
}

const std::byte* Received::array(uint64_t bytes) {
  if (next_item() != bytes || !ok_) return refuse();
  const uint64_t padded = align_up(bytes, 8);
  if (padded > header_.payload_bytes - at_) return refuse();
  copies_.push_back(std::make_unique<uint64_t[]>(padded / 8 + 1));
  auto* copy = reinterpret_cast<std::byte*>(copies_.back().get());
  memcpy(copy, payload_ + at_, bytes);
  at_ += padded;
  return copy;
}

const char* Received::string() {
  uint64_t bytes = 0;
  if (header_.payload_bytes - at_ >= sizeof(bytes)) memcpy(&bytes, payload_ + at_, sizeof(bytes));
  const auto* text = reinterpret_cast<const char*>(bytes == 0 ? refuse() : array(bytes));
  if (text == nullptr || text[bytes - 1] != '\0') {
    ok_ = false;
    return "";
  }
  return text;
}

bool Received::take_tail(uint64_t offset, uint64_t bytes) {
  if (bytes == 0) return true;
  if (offset > header_.payload_bytes || bytes > header_.payload_bytes - offset) return false;
  tail_ = {payload_ + offset, bytes};
  return true;
}

CUdeviceptr Received::device(Session& session, uint64_t& bytes) {
  const uint64_t address = next_item();
  bytes = next_item();
  if (!ok_ || !session.covers(address, bytes)) ok_ = false;
  return address;
}

template <>
CUstream Received::handle<CUstream>(Session& session) {
  CUstream stream = nullptr;
  if (session.streams().enter(uint32_t(next_item()), &stream) != CUDA_SUCCESS) ok_ = false;
  return stream;
}

template <>
CUevent Received::handle<CUevent>(Session& session) {
  const Events::Event* event = session.events().find(uint32_t(next_item()));
  if (event == nullptr) ok_ = false;
  return event == nullptr ? nullptr : event->handle;
}

template <>
CUlibrary Received::handle<CUlibrary>(Session& session) {
  const uint64_t number = next_item();
  const Library* library = session.libraries().find(number);
  if (library == nullptr) ok_ = false;
  library_ = number;
  return library == nullptr ? nullptr : library->handle;
}

template <>
CUkernel Received::handle<CUkernel>(Session& session) {
  const uint64_t wire = next_item();
  const KernelEntry* kernel = session.libraries().kernel(wire);
  if (kernel == nullptr) ok_ = false;
  library_ = wire >> 32;
  return kernel == nullptr ? nullptr : kernel->handle;
}

template <>
CUfunction Received::handle<CUfunction>(Session& session) {
  const uint64_t wire = next_item();
  const CUfunction function = session.libraries().function(wire);
  if (function == nullptr) ok_ = false;
  library_ = wire >> 32;
  return function;
}

template <>
CUdevice Received::handle<CUdevice>(Session& session) {
  next_item();
  return session.contexts().device();
}

std::string text_of(std::span<const std::byte> bytes) {
  std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  text.resize(strlen(text.c_str()));
  return text;
}

}  // namespace tide
