#pragma once

// Lowers one kernel and every function that it can reach to micro-ops. Registers and local memory of a function have
// fixed places: a lane is in a function at most once, so lanes in different calls never share a value.

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "softgpu/exec/handlers.h"
#include "softgpu/exec/warp.h"
#include "softgpu/lower/image.h"
#include "softgpu/ptx/ast.h"

namespace softgpu {

class KernelLowering {
 public:
  KernelLowering(const ptx::Module& module, const ImageLayout& image, const HandlerTable& handlers);

  // False, with *error set, when the kernel uses what is not supported.
  bool lower(const ptx::Function& kernel, KernelInfo* info, KernelCode* code, std::string* error);

  // Whether PTX has a special register of that name.
  static bool is_special(std::string_view name);
  static bool has_row(std::string_view opcode) { return rows().contains(opcode); }
  static KernelHead head_of(const ptx::Module& module, const ptx::Function& kernel);

  // Shows each instruction of one function; `visit` may ask whether that one is supported. For an object of its own.
  void probe(const ptx::Function& head,
             const std::function<void(const ptx::Function&, const ptx::Instruction&)>& visit);
  bool supports(const ptx::Instruction& in);

 private:
  using Operand = ptx::Operand;
  using Instruction = ptx::Instruction;
  using Type = ptx::Type;
  using Lower = bool (KernelLowering::*)();
  struct Row {
    std::string_view opcode;
    Lower lower;
  };

  // A function as part of this kernel.
  struct Instance {
    std::unique_ptr<const ptx::Function> function;
    std::vector<uint32_t> registers;  // offset of each register, 0 until used
    std::vector<uint64_t> variables;  // offset in shared or local memory, or in the parameters
    std::vector<uint32_t> first_op;   // of each statement
    std::vector<bool> named;          // statements that need no operation, see names.cc
    std::vector<uint32_t> last_use;   // statement from which on each register may hold anything
    std::vector<bool> unread;         // registers
    uint32_t code = 0;                // index in KernelCode::functions
    uint32_t frame = 0;               // register with the place of its frame; 0: its variables have fixed places
    uint64_t frame_bytes = 0;
    std::vector<FunctionCode::Saved> owned;  // registers that no other function uses
  };

  // Closure and layout (closure.cc).
  bool collect(const ptx::Function& function);
  bool collect_indirect();
  void find_recursion();
  uint64_t place_variable(Instance* instance, uint64_t bytes, uint64_t align);
  uint32_t own(uint32_t width);
  bool emit_parameters(bool results);
  bool visit_calls(const ptx::Function& function, uint32_t caller);
  void layout_variables(Instance* instance);
  void layout_shared();
  bool check_sizes();
  uint64_t place_shared(const ptx::Variable& v);
  void reserve_shared(const Operand& operand);
  void reference_shared(const Operand& operand, uint32_t unit);
  bool name_constants(Instance* instance);
  bool name_parameter(const Instruction& in, uint32_t* offset);
  void place_registers(Instance* instance);
  bool lower_function(Instance* instance);

  // What runs faster together (fuse.cc).
  void fuse(const Instance& instance);
  void mark_skips();
  void fuse_reductions(const Instance& instance);
  Handler reduction_at(uint32_t op) const;
  void mark_unwanted(const Instance& instance, uint32_t begin, uint32_t end);
  bool lower_instruction();
  void finish();

  // Modifiers of the instruction at hand, taken off one by one.
  bool take(std::string_view word);
  std::string_view take_one_of(std::initializer_list<std::string_view> words);
  Type take_type();
  bool take_memory_words();
  bool done();  // nothing left over
  bool fail(const std::string& what);
  bool unsupported();
  std::string spelling() const;

  // Operands (operands.cc).
  const Operand& at(size_t i) const;
  size_t count() const { return in_->operands.size(); }
  uint32_t register_width(const Operand& o) const;
  uint32_t register_offset(uint32_t reg);
  uint32_t allocate(uint32_t width);
  uint32_t allocate_predicate();
  uint32_t temporary(uint32_t width);
  uint32_t temporary_predicate();
  uint32_t constant(uint64_t bits, uint32_t width);
  bool constant_at(uint32_t offset, uint64_t* bits) const;
  uint32_t special32(Special which);
  bool special(std::string_view name, uint32_t* offset, uint32_t* width);
  bool source(const Operand& o, Type type, uint32_t width, uint32_t* out);
  bool source(const Operand& o, Type type, uint32_t* out) { return source(o, type, width_of(type), out); }
  bool predicate_source(const Operand& o, uint32_t* out);
  bool dest(const Operand& o, uint32_t width, uint32_t* out);
  bool predicate_dest(const Operand& o, uint32_t* out);
  bool symbol_address(const Operand& o, uint64_t* constant_bits, bool* in_image);
  static uint32_t width_of(Type type);
  static std::string name_of(Type type);
  uint64_t immediate(const Operand& o, Type type) const;

  // Emission.
  Handler find(const std::string& name) const;
  MicroOp& emit(Handler fn, uint32_t dst = 0, uint32_t a = 0, uint32_t b = 0, uint32_t c = 0);
  // Notes what the operation emitted last does to memory.
  void note_access(Access::Kind kind, bool shared, uint32_t bytes, uint32_t register_bytes);
  bool emit_named(const std::string& name, uint32_t dst, uint32_t a = 0, uint32_t b = 0, uint32_t c = 0);

  // Instructions.
  bool lower_simple();
  bool lower_arithmetic();
  bool emit_float(const std::string& stem, Type type, bool ftz, bool sat, uint32_t dst, const uint32_t* s, int n);
  bool lower_pick_of_three();
  bool lower_mixed(const std::string& stem, std::string_view round, bool sat);
  bool lower_fns();
  bool lower_carry();
  bool lower_logic();
  bool lower_mov();
  bool lower_mov_vector(Type type);
  bool lower_mov_special_vector();
  bool lower_setp();
  bool lower_set();
  bool lower_slct();
  bool lower_selp();
  bool lower_testp();
  bool lower_prmt();
  bool lower_lop3();
  bool lower_szext();
  bool lower_video();
  bool emit_scalar_video(Video v);
  bool emit_packed_video(Video v);
  bool emit_video(const char* name, Video v, const Operand& a, const Operand& b, const Operand& c);
  bool lower_cvt();
  bool convert_value(Type to, Type from, std::string_view round, bool ftz, bool sat, uint32_t from_reg,
                     uint32_t to_reg);
  bool convert_integers(Type to, Type from, bool sat, uint32_t from_reg, uint32_t to_reg);
  bool convert_floats(Type to, Type from, std::string_view round, bool ftz, bool sat, uint32_t from_reg,
                      uint32_t to_reg);
  bool lower_cvt_packed(Type to, std::string_view round, bool relu, bool satfinite);
  bool lower_cvt_pack();
  bool narrow_value(Type to, Type from, std::string_view round, bool sat, uint32_t from_reg, uint32_t to_reg);
  bool lower_cvta();
  bool lower_isspacep();

  bool lower_ld();
  bool lower_st();
  bool lower_atom();
  bool lower_red();
  bool lower_atomic(bool reduction);
  bool lower_atomic_vector(std::string_view what, Type type, bool reduction, size_t count);
  bool lower_prefetch();
  bool lower_nothing();
  bool lower_fence();
  bool lower_cp_async();
  bool lower_createpolicy();
  bool address(const Operand& o, std::string* space, MicroOp* op);
  bool data_operands(const Operand& o, Type type, bool load, MicroOp* op, std::string* width);
  bool wide_vector(const Operand& o, Type type, bool load, const std::string& place, MicroOp op);
  void check_alignment(const MicroOp& op, uint32_t bytes);

  // Textures and surfaces (texture.cc).
  bool lower_tex();
  bool lower_tld4();
  bool lower_texture_query();
  bool lower_istypep();
  bool lower_suld();
  bool lower_sust();
  bool lower_sured();
  bool take_geometry(Geometry* geometry, bool* layered);
  bool opaque_source(const Operand& o, Type type, uint32_t* out);
  bool coordinates(const Operand& o, Type type, size_t wanted, bool layered, uint32_t* layer,
                   std::array<uint32_t, 3>* out);
  bool texture_operand(const Operand& o, Type coordinate, bool layered, TextureOp* op);
  bool texture_results(const Operand& o, Type type, TextureOp* op);
  bool emit_texture(const TextureOp& op);
  bool surface_operand(const Operand& o, SurfaceOp* op);
  bool surface_data(const Operand& o, Type type, bool load, SurfaceOp* op);
  bool emit_surface(const char* name, const SurfaceOp& op);

  bool lower_bra();
  bool lower_brx();
  bool lower_call();
  bool lower_alloca();
  bool lower_stack();
  bool call_places(const Operand& list, const std::vector<ptx::Variable>* formal, bool results,
                   std::vector<CallCopy>* out);
  bool store_argument(const Operand& o, const std::vector<ptx::Variable>* formal, size_t index, CallCopy* place);
  bool load_results(const Operand& list, const std::vector<CallCopy>& places);
  bool copy_register(uint32_t reg, uint32_t width, uint64_t place, bool load);
  uint32_t call_site(std::vector<CallCopy> copies);
  bool call_builtin(std::string_view name, const std::vector<CallCopy>& arguments,
                    const std::vector<CallCopy>& results);
  bool is_framed(const Operand& o) const;
  bool lower_ret();
  bool lower_exit();
  bool lower_trap();
  bool lower_nanosleep();
  bool lower_bar();
  bool lower_barrier();
  bool lower_shfl();
  bool lower_vote();
  bool lower_match();
  bool lower_redux();
  bool lower_activemask();
  bool lower_elect();
  bool warp_op(Handler fn, uint32_t dst, uint32_t a, uint32_t b, uint32_t c, uint32_t e, const Operand* mask);

  // Matrices (tensor.cc).
  struct MatrixShape {
    uint32_t m = 0, n = 0, k = 0;
  };
  Element take_element();
  bool take_shape(MatrixShape* out);
  bool fragment(const Operand& o, TensorCode::Role role, uint32_t rows, uint32_t columns, bool result, Fragment* out);
  bool emit_multiply(const MatrixMultiply& x);
  bool multiply_fragments(MatrixMultiply* x);
  bool quad_fragments(MatrixMultiply* x, bool row_a, bool column_b);
  bool sparse_operands(MatrixMultiply* x);
  bool scale_operand(const Operand& factors, const Operand& where, MatrixMultiply::Scale* out);
  bool is_narrow_cvt() const;
  bool lower_cvt_narrow();
  bool lower_mma();
  bool lower_wmma();
  bool lower_wmma_access(bool load);
  bool lower_wmma_mma();
  bool lower_ldmatrix();
  bool lower_movmatrix();

  // Asynchronous copies and their barriers (async.cc).
  bool shared_address(const Operand& o, std::string_view space, MicroOp* op);
  uint32_t waiting_lanes();
  void yield_lanes(uint32_t waiting);
  bool lower_cp();
  bool lower_cp_async_arrive();
  bool lower_bulk();
  bool bulk_address(const Operand& o, std::string_view space, AddressOperand* out);
  bool bulk_words(bool reduces, BulkCopy* x);
  bool emit_bulk(const BulkCopy& x);
  bool lower_bulk_tensor(bool reduces);
  bool tensor_reduction(BulkCopy* x);
  bool tensor_place(const Operand& tensor, BulkCopy* x);
  bool lower_tensormap();
  bool lower_tensormap_copy();
  bool lower_generic_address(const Operand& o, MicroOp* op);
  bool lower_st_bulk();
  bool lower_clusterlaunchcontrol();
  bool lower_multimem();
  bool lower_barrier_cluster();
  bool lower_mapa();
  bool lower_getctarank();
  bool lower_bytes_arrive(const Operand& barrier, uint32_t bytes);
  bool lower_mbarrier();
  bool lower_mbarrier_arrive(std::string_view first);
  bool lower_mbarrier_wait();

  static const Row kRows[];
  static const std::unordered_map<std::string_view, Lower>& rows();

  const ptx::Module& module_;
  const ImageLayout& image_;
  const HandlerTable& handlers_;
  std::string* error_ = nullptr;
  KernelInfo* info_ = nullptr;
  KernelCode* code_ = nullptr;

  std::vector<Instance> instances_;
  std::unordered_map<const ptx::Function*, uint32_t> instance_of_;
  std::vector<std::vector<uint32_t>> callees_;        // of each instance; direct calls
  std::vector<bool> calls_pointers_;                  // of each instance
  std::unordered_map<uint32_t, uint64_t> shared_of_;  // module variables in shared memory
  std::vector<uint32_t> dynamic_shared_;
  uint64_t dynamic_align_ = 16;
  uint64_t shared_bytes_ = 0;
  bool reserves_shared_ = false;  // the kernel asks where the reserved part of shared memory is
  uint64_t local_bytes_ = 0;
  bool indirect_calls_ = false;
  bool uses_stack_ = false;

  uint32_t next_ = kFirstRegister;
  uint32_t next_predicate_ = 0, predicates_left_ = 0;
  std::map<std::pair<uint32_t, uint64_t>, uint32_t> constants_;  // width, bits -> offset
  std::map<uint64_t, uint32_t> image_slots_;
  std::map<std::pair<uint32_t, uint64_t>, uint32_t> param_slots_;  // width, place in the parameters -> offset
  std::unordered_map<uint32_t, uint32_t> specials_;
  uint32_t carry_ = 0;
  uint32_t cluster_phase_ = 0;  // register; 0: none yet
  // Places for values inside one instruction, by width (0: predicates), and how many it has taken so far.
  std::map<uint32_t, std::vector<uint32_t>> temporaries_;
  std::map<uint32_t, size_t> temporaries_used_;
  uint32_t pressure_ = 0;  // registers that hold a value at once, in the fullest function, of 32 bits
  std::vector<std::pair<uint32_t, uint32_t>> fixups_;        // op, statement of the current function
  std::vector<std::pair<uint32_t, uint32_t>> table_fixups_;  // row of tables, statement

  Instance* instance_ = nullptr;
  const Instruction* in_ = nullptr;
  bool missing_ = false;  // an instruction was not supported, as opposed to wrong
  std::vector<std::string_view> modifiers_;
  uint32_t guard_ = kTruePredicate;
  uint32_t guard_xor_ = 0;
};

}  // namespace softgpu
