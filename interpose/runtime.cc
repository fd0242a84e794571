// What the static C++ library would bring: its allocation functions and throwers, and with them its exception machinery
// and the constructors of that. This library throws nothing: where the standard library would, the process ends, as it
// would on an exception that nobody catches. Hidden, like everything but the driver's own names.

#include <cstdio>
#include <cstdlib>
#include <new>
#include <typeinfo>

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

namespace {

[[noreturn]] void give_up(const char* what) {
  fprintf(stderr, "tidepool: error: %s\n", what);
  abort();
}

void* allocate(std::size_t bytes) {
  void* p = malloc(bytes == 0 ? 1 : bytes);
  if (p == nullptr) give_up("out of host memory");
  return p;
}

}  // namespace

void* operator new(std::size_t bytes) { return allocate(bytes); }
void* operator new[](std::size_t bytes) { return allocate(bytes); }
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept { return malloc(bytes); }
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept { return malloc(bytes); }
void* operator new(std::size_t bytes, std::align_val_t align) {
  void* p = nullptr;
  if (posix_memalign(&p, std::size_t(align), bytes) != 0) give_up("out of host memory");
  return p;
}
void operator delete(void* p) noexcept { free(p); }
void operator delete[](void* p) noexcept { free(p); }
void operator delete(void* p, std::size_t) noexcept { free(p); }
void operator delete[](void* p, std::size_t) noexcept { free(p); }
void operator delete(void* p, std::align_val_t) noexcept { free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { free(p); }

namespace std {

void __throw_bad_alloc() { give_up("out of host memory"); }
void __throw_bad_array_new_length() { give_up("an array is too large"); }
void __throw_length_error(const char* what) { give_up(what); }
void __throw_logic_error(const char* what) { give_up(what); }
void __throw_out_of_range(const char* what) { give_up(what); }
void __throw_out_of_range_fmt(const char* what, ...) { give_up(what); }
void __throw_bad_function_call() { give_up("an empty function was called"); }
void __throw_system_error(int) { give_up("a lock failed"); }
void terminate() noexcept { give_up("terminated"); }

}  // namespace std

// Nothing is ever thrown here, so these are reached only by foreign unwinding: a thread that is cancelled inside of a
// call passes through without clean-up (8 is _URC_CONTINUE_UNWIND).
extern "C" {

int __gxx_personality_v0(int, int, unsigned long, void*, void*) { return 8; }
void _Unwind_Resume(void*) { give_up("unwound"); }
void* __cxa_allocate_exception(std::size_t) noexcept { give_up("threw"); }
void __cxa_free_exception(void*) noexcept {}
void __cxa_throw(void*, std::type_info*, void (*)(void*)) { give_up("threw"); }
void* __cxa_begin_catch(void*) noexcept { give_up("caught"); }
void __cxa_end_catch() {}
void __cxa_rethrow() { give_up("threw"); }
void __cxa_pure_virtual() { give_up("a pure virtual function was called"); }

}  // extern "C"

#endif
