// Textures and surfaces. A handle is a 64-bit register, or a .texref or .surfref variable of the module: the variable
// holds the handle of what the program bound to it, and the handlers read it there.

#include <algorithm>

#include "softgpu/lower/kernel_lowering.h"

namespace softgpu {

using ptx::Type;

bool KernelLowering::take_geometry(Geometry* geometry, bool* layered) {
  struct Row {
    std::string_view name;
    Geometry geometry;
    bool layered;
  };
  static constexpr Row kGeometries[] = {{"1d", Geometry::k1d, false},    {"2d", Geometry::k2d, false},
                                        {"3d", Geometry::k3d, false},    {"a1d", Geometry::k1d, true},
                                        {"a2d", Geometry::k2d, true},    {"cube", Geometry::kCube, false},
                                        {"acube", Geometry::kCube, true}};
  for (const Row& row : kGeometries) {
    if (!take(row.name)) continue;
    *geometry = row.geometry;
    *layered = row.layered;
    return true;
  }
  return unsupported();
}

bool KernelLowering::opaque_source(const Operand& o, Type type, uint32_t* out) {
  if (o.kind == Operand::Kind::kRegister) return source(o, Type::kU64, out);
  const int64_t v = module_.find_variable(instance_->function->unit, o.name);
  if (o.kind != Operand::Kind::kSymbol || v < 0 || module_.variables[static_cast<size_t>(v)].type != type) {
    return fail("'" + std::string(o.name) + "' is not a reference of the right kind in the module's scope");
  }
  return source(o, Type::kU64, out);
}

// The operands of `{a, b}` or of a single one.
namespace {

size_t parts_of(const ptx::Operand& o) { return o.kind == ptx::Operand::Kind::kVector ? o.parts.size() : 1; }

const ptx::Operand& part_of(const ptx::Operand& o, size_t i) {
  return o.kind == ptx::Operand::Kind::kVector ? o.parts[i] : o;
}

size_t coordinates_of(Geometry geometry) { return geometry == Geometry::k1d ? 1 : geometry == Geometry::k2d ? 2 : 3; }

}  // namespace

bool KernelLowering::coordinates(const Operand& o, Type type, size_t wanted, bool layered, uint32_t* layer,
                                 std::array<uint32_t, 3>* out) {
  const size_t first = layered ? 1 : 0;
  if (parts_of(o) < wanted + first) return fail("too few coordinates");
  if (layered && !source(part_of(o, 0), Type::kU32, layer)) return false;
  for (size_t i = 0; i < wanted; ++i) {
    if (!source(part_of(o, first + i), type, &(*out)[i])) return false;
  }
  return true;
}

// Reads `[handle, {coordinates}]`, with a sampler between them in independent mode.
bool KernelLowering::texture_operand(const Operand& o, Type coordinate, bool layered, TextureOp* op) {
  if (o.kind != Operand::Kind::kAddress || o.offset != 0 || o.parts.size() < 2 || o.parts.size() > 3) {
    return unsupported();
  }
  if (!opaque_source(o.parts[0], Type::kTexref, &op->handle)) return false;
  if (o.parts.size() == 3 && !opaque_source(o.parts[1], Type::kSamplerref, &op->sampler)) return false;
  op->integer_coordinates = coordinate == Type::kS32;
  return coordinates(o.parts.back(), coordinate, coordinates_of(op->geometry), layered, &op->layer, &op->at);
}

bool KernelLowering::texture_results(const Operand& o, Type type, TextureOp* op) {
  const bool pair = o.kind == Operand::Kind::kPair;
  const Operand& values = pair ? o.parts[0] : o;
  if (pair && !predicate_dest(o.parts[1], &op->resident)) return false;
  const size_t n = parts_of(values);
  op->result = type == Type::kF16 ? TexelResult::k16 : type == Type::kF16x2 ? TexelResult::k16x2 : TexelResult::k32;
  const bool known =
      type == Type::kU32 || type == Type::kS32 || type == Type::kF32 || type == Type::kF16 || type == Type::kF16x2;
  if (!known || n != (op->result == TexelResult::k16x2 ? 2u : 4u)) return unsupported();
  op->results = static_cast<uint8_t>(n);
  for (size_t i = 0; i < n; ++i) {
    if (!dest(part_of(values, i), op->result == TexelResult::k16 ? 2 : 4, &op->dst[i])) return false;
  }
  return true;
}

bool KernelLowering::emit_texture(const TextureOp& op) {
  code_->texture_ops.push_back(op);
  emit(find("tex")).imm = static_cast<int64_t>(code_->texture_ops.size() - 1);
  return true;
}

bool KernelLowering::lower_tex() {
  TextureOp op;
  if (take("level")) op.lod_mode = LodMode::kLevel;
  if (take("grad")) op.lod_mode = LodMode::kGradient;
  take("base");
  bool layered = false;
  if (!take_geometry(&op.geometry, &layered)) return false;
  take_one_of({"v4", "v2"});
  const Type result = take_type();
  const Type coordinate = take_type();
  const size_t operands = op.lod_mode == LodMode::kBase ? 2 : op.lod_mode == LodMode::kLevel ? 3 : 4;
  const bool known = coordinate == Type::kF32 ||
                     (coordinate == Type::kS32 && op.lod_mode != LodMode::kGradient && op.geometry != Geometry::kCube);
  if (!known || !done() || count() != operands) return unsupported();
  if (!texture_results(at(0), result, &op) || !texture_operand(at(1), coordinate, layered, &op)) return false;
  if (op.lod_mode == LodMode::kLevel && !source(at(2), coordinate, &op.lod)) return false;
  if (op.lod_mode == LodMode::kGradient) {
    const size_t n = coordinates_of(op.geometry);
    if (!coordinates(at(2), Type::kF32, n, false, nullptr, &op.dx)) return false;
    if (!coordinates(at(3), Type::kF32, n, false, nullptr, &op.dy)) return false;
  }
  return emit_texture(op);
}

bool KernelLowering::lower_tld4() {
  TextureOp op;
  const std::string_view component = take_one_of({"r", "g", "b", "a"});
  bool layered = false;
  if (component.empty() || !take_geometry(&op.geometry, &layered)) return unsupported();
  op.gather = static_cast<int8_t>(std::string_view("rgba").find(component));
  take("v4");
  const Type result = take_type();
  const bool flat = op.geometry == Geometry::k2d || op.geometry == Geometry::kCube;
  if (take_type() != Type::kF32 || !flat || result == Type::kF16x2 || !done() || count() != 2) return unsupported();
  return texture_results(at(0), result, &op) && texture_operand(at(1), Type::kF32, layered, &op) && emit_texture(op);
}

namespace {

struct QueryName {
  std::string_view name;
  TextureQuery query;
};

constexpr QueryName kQueries[] = {
    {"width", TextureQuery::kWidth},
    {"height", TextureQuery::kHeight},
    {"depth", TextureQuery::kDepth},
    {"channel_data_type", TextureQuery::kChannelType},
    {"channel_order", TextureQuery::kChannelOrder},
    {"normalized_coords", TextureQuery::kNormalizedCoordinates},
    {"array_size", TextureQuery::kArraySize},
    {"num_mipmap_levels", TextureQuery::kLevels},
    {"num_samples", TextureQuery::kSamples},
    {"filter_mode", TextureQuery::kFilter},
    {"addr_mode_0", TextureQuery::kAddress0},
    {"addr_mode_1", TextureQuery::kAddress1},
    {"addr_mode_2", TextureQuery::kAddress2},
    {"force_unnormalized_coords", TextureQuery::kForceUnnormalized},
    {"memory_layout", TextureQuery::kMemoryLayout},
};

}  // namespace

// txq and suq.
bool KernelLowering::lower_texture_query() {
  const bool surface = in_->opcode == "suq";
  const bool level = take("level");
  const QueryName* what = nullptr;
  for (const QueryName& row : kQueries) {
    if (what == nullptr && take(row.name)) what = &row;
  }
  if (what == nullptr || take_type() != Type::kB32 || !done()) return unsupported();
  const Operand& from = at(1);
  if (from.kind != Operand::Kind::kAddress || from.parts.size() != 1 || count() != (level ? 3u : 2u)) {
    return unsupported();
  }
  uint32_t dst = 0, handle = 0, number = 0;
  if (!dest(at(0), 4, &dst) || !opaque_source(from.parts[0], surface ? Type::kSurfref : Type::kTexref, &handle)) {
    return false;
  }
  if (level && !source(at(2), Type::kU32, &number)) return false;
  MicroOp& op = emit(find("tex.query"), dst, handle, number);
  op.x = static_cast<uint8_t>(what->query);
  op.y = surface ? 1 : 0;
  return true;
}

bool KernelLowering::lower_istypep() {
  const std::string_view what = take_one_of({"texref", "surfref", "samplerref"});
  if (what.empty() || !done()) return unsupported();
  uint32_t dst = 0, handle = 0;
  if (!predicate_dest(at(0), &dst) || !source(at(1), Type::kU64, &handle)) return false;
  emit(find("istypep"), dst, handle).x = what == "texref" ? 0 : what == "surfref" ? 1 : 2;
  return true;
}

// What suld, sust and sured share: geometry, bounds and `[handle, {coordinates}]`.
bool KernelLowering::surface_operand(const Operand& o, SurfaceOp* op) {
  bool layered = false;
  take_memory_words();
  if (!take_geometry(&op->geometry, &layered) || op->geometry == Geometry::kCube) return unsupported();
  const std::string_view bounds = take_one_of({"trap", "clamp", "zero"});
  op->bounds = bounds == "clamp"  ? SurfaceBounds::kClamp
               : bounds == "zero" ? SurfaceBounds::kZero
                                  : SurfaceBounds::kTrap;
  if (o.kind != Operand::Kind::kAddress || o.offset != 0 || o.parts.size() != 2) return unsupported();
  return opaque_source(o.parts[0], Type::kSurfref, &op->handle) &&
         coordinates(o.parts[1], Type::kS32, coordinates_of(op->geometry), layered, &op->layer, &op->at);
}

bool KernelLowering::surface_data(const Operand& o, Type type, bool load, SurfaceOp* op) {
  const size_t n = parts_of(o);
  if (n > 4) return unsupported();
  uint32_t width = 0;
  for (size_t i = 0; i < n; ++i) width = std::max(width, register_width(part_of(o, i)));
  if (width == 0) width = width_of(type);
  op->elements = static_cast<uint8_t>(n);
  op->element_bytes = static_cast<uint8_t>(ptx::bytes_of(type));
  op->register_bytes = static_cast<uint8_t>(width);
  if (width < op->element_bytes) return fail("the registers are too narrow");
  for (size_t i = 0; i < n; ++i) {
    const Operand& part = part_of(o, i);
    if (load ? !dest(part, width, &op->data[i]) : !source(part, type, width, &op->data[i])) return false;
  }
  return true;
}

bool KernelLowering::emit_surface(const char* name, const SurfaceOp& op) {
  code_->surface_ops.push_back(op);
  emit(find(name)).imm = static_cast<int64_t>(code_->surface_ops.size() - 1);
  return true;
}

bool KernelLowering::lower_suld() {
  SurfaceOp op;
  take_one_of({"v2", "v4"});
  if (!take("b") || count() != 2 || !surface_operand(at(1), &op)) return unsupported();
  const Type type = take_type();
  if (type == Type::kNone || type == Type::kB128 || !done()) return unsupported();
  return surface_data(at(0), type, true, &op) && emit_surface("suld", op);
}

bool KernelLowering::lower_sust() {
  SurfaceOp op;
  take_one_of({"v2", "v4"});
  op.formatted = take("p");
  if ((!op.formatted && !take("b")) || count() != 2 || !surface_operand(at(0), &op)) return unsupported();
  const Type type = take_type();
  const bool wide = type == Type::kB32 || type == Type::kU32 || type == Type::kS32 || type == Type::kF32;
  if (type == Type::kNone || type == Type::kB128 || (op.formatted && !wide) || !done()) return unsupported();
  op.float_data = type == Type::kF32;
  op.signed_data = type == Type::kS32;
  return surface_data(at(1), type, false, &op) && emit_surface("sust", op);
}

bool KernelLowering::lower_sured() {
  SurfaceOp op;
  const std::string_view how = take_one_of({"add", "min", "max", "and", "or"});
  op.reduction = how == "add"   ? SurfaceReduction::kAdd
                 : how == "min" ? SurfaceReduction::kMin
                 : how == "max" ? SurfaceReduction::kMax
                 : how == "and" ? SurfaceReduction::kAnd
                                : SurfaceReduction::kOr;
  op.formatted = take("p");
  if (how.empty() || (!op.formatted && !take("b")) || count() != 2 || !surface_operand(at(0), &op)) {
    return unsupported();
  }
  const Type type = take_type();
  const uint32_t bytes = ptx::bytes_of(type);
  if ((bytes != 4 && bytes != 8) || ptx::is_float(type) || !done()) return unsupported();
  op.signed_data = ptx::is_signed(type);
  return surface_data(at(1), type, false, &op) && emit_surface("sured", op);
}

}  // namespace softgpu
