// GCC 11 and newer call this function of libstdc++ from std::vector; older systems' libstdc++ does not have
// it, and a library that asked for it would not load there. Defined here, it is not asked for.
#include <new>

#if defined(__GLIBCXX__) && defined(__GNUC__) && __GNUC__ >= 11 && !defined(__clang__)

namespace std {

void __throw_bad_array_new_length() { throw bad_array_new_length(); }

}  // namespace std

#endif
