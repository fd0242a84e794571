#include "softgpu/exec/check.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "softgpu/exec/block.h"

namespace softgpu {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kStartsEvery = 512;  // allocations begin at multiples of it
constexpr size_t kBlocksRemembered = 65536;
constexpr size_t kWordsOfChunk = kChunkBytes / 4;

enum Trouble { kBounds, kUnwritten, kRace, kSamePlace };

// What belongs to one block: its shared memory, and the allocation that it touched last.
struct BlockShadow {
  std::vector<bool> unwritten;
  std::vector<WordMarks> marks;
  uint64_t start = 0, bytes = 0;
};

BlockShadow& shadow_of(Block& block) {
  if (block.shadow == nullptr) {
    auto made = std::make_shared<BlockShadow>();
    made->unwritten.assign(block.memory.shared_bytes, true);
    std::fill_n(made->unwritten.begin(), std::min<uint64_t>(block.code->reserved_shared_bytes, made->unwritten.size()),
                false);
    made->marks.resize((block.memory.shared_bytes + 3) / 4);
    block.shadow = made;
  }
  return *static_cast<BlockShadow*>(block.shadow.get());
}

uint32_t number_of(const Block& block) {
  const Dim3& grid = block.launch->grid;
  return static_cast<uint32_t>(block.index.x + uint64_t{grid.x} * (block.index.y + uint64_t{grid.y} * block.index.z));
}

bool in_window(uint64_t address) { return address - kWindowBase < kWindowBytes; }
bool in_shared(uint64_t address) { return address - kSharedWindow < kPrivateWindowBytes; }

std::string hex(uint64_t value) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  do {
    out.insert(out.begin(), kDigits[value & 15]);
  } while ((value >>= 4) != 0);
  return "0x" + out;
}

// The address operand as all memory operations have it.
uint64_t address_of(const Warp& w, uint32_t reg, uint8_t form, uint64_t offset, uint32_t lane) {
  uint64_t base = 0;
  if (form == 1) base = reinterpret_cast<const uint32_t*>(w.regs + reg)[lane];
  if (form == 2) base = reinterpret_cast<const uint64_t*>(w.regs + reg)[lane];
  return base + offset;
}

void fill_addresses(const Warp& w, const MicroOp& op, const Access& access, Checker::Lanes* lanes) {
  const bool target = access.kind == Access::Kind::kCopy && lanes->kind == Checker::Kind::kStore;
  const uint64_t offset = target ? op.target : static_cast<uint64_t>(op.imm);
  for (uint32_t m = lanes->mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    uint64_t a = address_of(w, target ? op.dst : op.a, target ? op.x : op.y, offset, lane);
    if (access.shared || target) a = kSharedWindow + (a & 0xffffffff);
    lanes->address[lane] = a;
  }
}

// Lanes whose cp.async reads all that it writes; the others fill with zeros.
uint32_t whole_copies(const Warp& w, const MicroOp& op, uint32_t mask) {
  uint32_t out = op.d != 0 ? mask & ~*reinterpret_cast<const uint32_t*>(w.regs + op.d) : mask;
  for (uint32_t m = out; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    if (reinterpret_cast<const uint32_t*>(w.regs + op.b)[lane] < op.vec) out &= ~(uint32_t{1} << lane);
  }
  return out;
}

// What stands in a checked kernel where the original has an operation on memory.
void checked(const MicroOp& op, Warp& w, uint32_t mask) {
  const KernelCode& code = *w.block->code;
  const auto pc = static_cast<uint32_t>(&op - code.ops.data());
  const MicroOp& real = code.original->ops[pc];
  const Access& access = code.accesses[code.access_of[pc]];
  Checker& checker = *w.block->leader->checks->checker;
  if (access.kind == Access::Kind::kFence) {
    checker.fence(w);
    return real.fn(real, w, mask);
  }
  if (!access.shared) w.block->leader->bytes += static_cast<uint64_t>(std::popcount(mask)) * access.bytes;
  if (checker.options.memory()) {
    Checker::Lanes lanes{.address = {},
                         .mask = mask,
                         .bytes = access.bytes,
                         .kind = access.kind == Access::Kind::kStore    ? Checker::Kind::kStore
                                 : access.kind == Access::Kind::kAtomic ? Checker::Kind::kAtomic
                                                                        : Checker::Kind::kLoad,
                         .strong = access.strong,
                         .values = access.kind == Access::Kind::kStore ? w.regs + op.dst : nullptr,
                         .value_bytes = access.register_bytes,
                         .pc = pc};
    if (access.kind == Access::Kind::kCopy) lanes.mask = whole_copies(w, op, mask);
    fill_addresses(w, op, access, &lanes);
    if (!checker.look(w, lanes)) return;
    if (access.kind == Access::Kind::kCopy) {
      lanes.mask = mask;
      lanes.kind = Checker::Kind::kStore;
      fill_addresses(w, op, access, &lanes);
      if (!checker.look(w, lanes)) return;
    }
  }
  real.fn(real, w, mask);
}

std::mutex g_variants_mu;

}  // namespace

const KernelCode& with_checks(const KernelCode& code) {
  const std::lock_guard lock(g_variants_mu);
  if (code.checked == nullptr) {
    auto made = std::make_shared<KernelCode>(code);
    made->original = &code;
    made->access_of.assign(code.ops.size(), ~uint32_t{0});
    for (uint32_t i = 0; i < code.accesses.size(); ++i) {
      made->access_of[code.accesses[i].op] = i;
      made->ops[code.accesses[i].op].fn = checked;
    }
    code.checked = std::move(made);
  }
  return *code.checked;
}

Checker::Checker(const CheckOptions& its_options, const Allocations& allocations,
                 std::function<void(const std::string&)> report)
    : options(its_options), allocations_(allocations), report_(std::move(report)) {}

std::unique_ptr<LaunchChecks> Checker::begin() {
  auto out = std::make_unique<LaunchChecks>();
  out->checker = this;
  if (options.races) {
    out->fences.assign(kBlocksRemembered, 0);
    out->acquired.assign(kBlocksRemembered, false);
  }
  const std::lock_guard lock(mu_);
  out->id = ++launches_;
  return out;
}

void Checker::change(uint64_t address, uint64_t bytes, bool unwritten) {
  while (bytes > 0) {
    const uint64_t chunk = address & ~(kChunkBytes - 1), within = address - chunk;
    const uint64_t piece = std::min(bytes, kChunkBytes - within);
    auto found = unwritten_.find(chunk);
    if (found == unwritten_.end() && unwritten) {
      found = unwritten_.emplace(chunk, std::vector<uint64_t>(kChunkBytes / 64, 0)).first;
    }
    if (found != unwritten_.end()) {
      for (uint64_t i = within; i < within + piece;) {
        const uint64_t count = std::min<uint64_t>(64 - i % 64, within + piece - i);
        const uint64_t mask = (count == 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1) << (i % 64);
        uint64_t& word = found->second[i / 64];
        word = unwritten ? word | mask : word & ~mask;
        i += count;
      }
    }
    address += piece;
    bytes -= piece;
  }
}

bool Checker::unwritten(uint64_t address, uint64_t bytes) const {
  for (uint64_t i = 0; i < bytes; ++i) {
    const uint64_t chunk = (address + i) & ~(kChunkBytes - 1);
    const auto found = unwritten_.find(chunk);
    if (found == unwritten_.end()) continue;
    const uint64_t within = address + i - chunk;
    if ((found->second[within / 64] >> (within % 64) & 1) != 0) return true;
  }
  return false;
}

void Checker::allocated(uint64_t address, uint64_t bytes) {
  if (!options.uninitialised) return;
  const std::lock_guard lock(mu_);
  change(address, bytes, true);
}

void Checker::written(uint64_t address, uint64_t bytes) {
  if (!options.uninitialised || !in_window(address)) return;
  const std::lock_guard lock(mu_);
  change(address, bytes, false);
}

void Checker::copied(uint64_t to, uint64_t from, uint64_t bytes) {
  if (!options.uninitialised || !in_window(to)) return;
  const std::lock_guard lock(mu_);
  change(to, bytes, false);
  if (!in_window(from)) return;
  // What nobody wrote stays that where it is copied to.
  for (uint64_t i = 0; i < bytes; ++i) {
    if (unwritten(from + i, 1)) change(to + i, 1, true);
  }
}

bool Checker::inside(Block& block, uint64_t address, uint64_t bytes) {
  BlockShadow& shadow = shadow_of(block);
  if (address - shadow.start < shadow.bytes && bytes <= shadow.bytes - (address - shadow.start)) return true;
  uint64_t start = 0, size = 0;
  if (allocations_.find(address, &start, &size) && bytes <= size - (address - start)) {
    shadow.start = start;
    shadow.bytes = size;
    return true;
  }
  if (options.granularity == 1) return false;
  // Somebody's page is enough.
  for (uint64_t page = address & ~(kPage - 1); page < address + bytes; page += kPage) {
    bool used = false;
    for (uint64_t at = page; at < page + kPage && !used; at += kStartsEvery)
      used = allocations_.find(at, &start, &size);
    if (!used) return false;
  }
  return true;
}

bool Checker::bounds(Warp& warp, const Lanes& lanes) {
  for (uint32_t m = lanes.mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    const uint64_t address = lanes.address[lane];
    if (!in_window(address) || inside(*warp.block, address, lanes.bytes)) continue;
    // Asked before the lock is taken: whoever allocates takes both the other way round.
    const std::string what = std::string(lanes.kind == Kind::kLoad ? "reads " : "writes ") +
                             std::to_string(lanes.bytes) + " bytes at " + hex(address) + ", " +
                             allocations_.describe(address);
    {
      const std::lock_guard lock(mu_);
      tell({&warp, lane, lanes.pc, address}, kBounds, what);
    }
    raise(warp, FaultKind::kIllegalAddress, address, lane);
    return false;
  }
  return true;
}

bool Checker::read_unwritten(Warp& warp, uint64_t address, uint32_t bytes) {
  if (in_window(address)) return unwritten(address, bytes);
  if (!in_shared(address)) return false;
  const BlockShadow& shadow = shadow_of(*warp.block);
  for (uint64_t i = address - kSharedWindow; i < address - kSharedWindow + bytes && i < shadow.unwritten.size(); ++i) {
    if (shadow.unwritten[i]) return true;
  }
  return false;
}

void Checker::mark_written(Warp& warp, uint64_t address, uint32_t bytes) {
  if (in_window(address)) return change(address, bytes, false);
  if (!in_shared(address)) return;
  BlockShadow& shadow = shadow_of(*warp.block);
  for (uint64_t i = address - kSharedWindow; i < address - kSharedWindow + bytes && i < shadow.unwritten.size(); ++i) {
    shadow.unwritten[i] = false;
  }
}

WordMarks* Checker::marks_of(Warp& warp, uint64_t address) {
  if (in_shared(address)) {
    BlockShadow& shadow = shadow_of(*warp.block);
    const uint64_t word = (address - kSharedWindow) / 4;
    return word < shadow.marks.size() ? &shadow.marks[word] : nullptr;
  }
  if (!in_window(address)) return nullptr;
  std::unique_ptr<WordMarks[]>& chunk = marks_[address >> kChunkShift];
  if (chunk == nullptr) chunk = std::make_unique<WordMarks[]>(kWordsOfChunk);
  return &chunk[(address & (kChunkBytes - 1)) / 4];
}

void Checker::race(Warp& warp, const Lanes& lanes, uint32_t lane) {
  Block& block = *warp.block;
  LaunchChecks& launch = *block.leader->checks;
  AccessMark me;
  me.launch = launch.id;
  me.block = number_of(block);
  me.barriers = block.barriers_done;
  me.fences = launch.fences[me.block % kBlocksRemembered];
  me.thread = static_cast<uint16_t>(warp.index * 32 + lane);
  me.strong = lanes.strong || lanes.kind == Kind::kAtomic;
  const bool acquired = launch.acquired[me.block % kBlocksRemembered];
  const auto conflicts = [&](const AccessMark& other) {
    if (other.launch != me.launch || (other.bytes & me.bytes) == 0 || (other.strong && me.strong)) return false;
    if (other.block == me.block) {
      if (other.barriers != me.barriers || (other.thread / 32 == warp.index && !other.several)) return false;
    }
    const bool published = other.strong || launch.fences[other.block % kBlocksRemembered] != other.fences;
    return !(published && acquired);
  };
  const auto note = [&](AccessMark* mark) {
    const bool mine = mark->launch == me.launch && mark->block == me.block && mark->barriers == me.barriers;
    const bool same_warp = mine && mark->thread / 32 == warp.index;
    const uint8_t before = same_warp ? mark->bytes : uint8_t{0};
    const bool several =
        mark->launch == me.launch && (mark->bytes & me.bytes) != 0 && !same_warp && (mark->block != me.block || mine);
    const bool kept = same_warp && mark->several;
    *mark = me;
    mark->bytes |= before;
    mark->several = several || kept;
  };
  for (uint64_t at = lanes.address[lane] & ~uint64_t{3}; at < lanes.address[lane] + lanes.bytes; at += 4) {
    WordMarks* word = marks_of(warp, at);
    if (word == nullptr) return;
    const uint64_t from = std::max(at, lanes.address[lane]) - at;
    const uint64_t to = std::min(at + 4, lanes.address[lane] + lanes.bytes) - at;
    me.bytes = static_cast<uint8_t>(((1u << to) - 1) & ~((1u << from) - 1));
    const bool writes = lanes.kind != Kind::kLoad;
    const bool by_write = conflicts(word->write), by_read = writes && conflicts(word->read);
    if (by_write || by_read) {
      const AccessMark& other = by_write ? word->write : word->read;
      tell({&warp, lane, lanes.pc, at}, kRace,
           std::string(writes ? "writes " : "reads ") + hex(lanes.address[lane]) + ", which thread " +
               std::to_string(other.thread) + " of block " + std::to_string(other.block) +
               (by_write ? " wrote" : " read") +
               (other.block == me.block ? ", without a barrier between them" : ", with nothing that orders them"));
    }
    note(writes ? &word->write : &word->read);
  }
}

// Lanes of one store that write different values to one place: which one stays is nobody's promise.
void Checker::same_place(Warp& warp, const Lanes& lanes) {
  if (lanes.values == nullptr || lanes.value_bytes == 0) return;
  const uint32_t width = std::min(lanes.value_bytes, lanes.bytes);
  for (uint32_t m = lanes.mask; m != 0; m &= m - 1) {
    const auto i = static_cast<uint32_t>(std::countr_zero(m));
    for (uint32_t n = m & (m - 1); n != 0; n &= n - 1) {
      const auto j = static_cast<uint32_t>(std::countr_zero(n));
      if (lanes.address[i] != lanes.address[j]) continue;
      const std::byte* v = lanes.values;
      if (std::memcmp(v + i * lanes.value_bytes, v + j * lanes.value_bytes, width) == 0) continue;
      return tell({&warp, j, lanes.pc, lanes.address[j]}, kSamePlace,
                  "writes " + hex(lanes.address[j]) + ", to which lane " + std::to_string(i) +
                      " writes another value in the same instruction");
    }
  }
}

void Checker::tell(const Place& place, int kind, const std::string& what) {
  static constexpr const char* kNames[] = {"out of bounds", "uninitialised read", "race", "race"};
  Block& block = *place.warp->block;
  if (block.leader->checks->told.emplace(place.pc, kind).second) {
    report_(std::string(kNames[kind]) + ": " + place_text(block, place.warp->index, place.lane, place.pc) + ": " +
            what);
  }
  if (options.fatal && kind != kBounds) raise(*place.warp, FaultKind::kTrap, place.address, place.lane);
}

bool Checker::look(Warp& warp, const Lanes& lanes) {
  // What is not aligned ends in the operation itself.
  for (uint32_t m = lanes.mask; m != 0; m &= m - 1) {
    if ((lanes.address[static_cast<uint32_t>(std::countr_zero(m))] & (lanes.bytes - 1)) != 0) return true;
  }
  if (options.granularity != 0 && !bounds(warp, lanes)) return false;
  if (!options.uninitialised && !options.races) return true;
  const std::lock_guard lock(mu_);
  for (uint32_t m = lanes.mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    const uint64_t address = lanes.address[lane];
    if (options.uninitialised) {
      if (lanes.kind != Kind::kStore && read_unwritten(warp, address, lanes.bytes)) {
        tell({&warp, lane, lanes.pc, address}, kUnwritten,
             "reads " + std::to_string(lanes.bytes) + " bytes at " + hex(address) + " that nobody wrote");
      }
      if (lanes.kind != Kind::kLoad) mark_written(warp, address, lanes.bytes);
    }
    if (options.races) race(warp, lanes, lane);
  }
  if (options.races) {
    if (lanes.kind == Kind::kStore) same_place(warp, lanes);
    if (lanes.strong || lanes.kind == Kind::kAtomic) {
      warp.block->leader->checks->acquired[number_of(*warp.block) % kBlocksRemembered] = true;
    }
  }
  return warp.block->fault == FaultKind::kNone;
}

void Checker::fence(Warp& warp) {
  if (!options.races) return;
  const std::lock_guard lock(mu_);
  ++warp.block->leader->checks->fences[number_of(*warp.block) % kBlocksRemembered];
}

}  // namespace softgpu
