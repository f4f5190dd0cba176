/* A plugin for qemu-user that tells the emulated program how many instructions it has run.
 *
 *   qemu-aarch64 -plugin libcount.so,counter=FILE[,vector=on] PROGRAM
 *
 * FILE is rewritten just before every pread of 8 bytes that the program does; it then holds the number of
 * instructions run so far, or of those of the vector unit alone. The declarations below are those of version
 * 1 of the emulator's plugin interface, for which distributions ship no header. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb* tb);
struct qemu_plugin_insn* qemu_plugin_tb_get_insn(const struct qemu_plugin_tb* tb, size_t index);
const void* qemu_plugin_insn_data(const struct qemu_plugin_insn* insn);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
                                           void (*callback)(qemu_plugin_id_t, struct qemu_plugin_tb*));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb* tb, void (*callback)(unsigned, void*),
                                          enum qemu_plugin_cb_flags flags, void* data);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t id,
                                          void (*callback)(qemu_plugin_id_t, unsigned, int64_t, uint64_t,
                                                           uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                                                           uint64_t, uint64_t));

EXPORT int qemu_plugin_version = 1;

/* arm64's number of the system call. */
static const int64_t kPread64 = 67;

static uint64_t instructions;
static int counter = -1;
static bool vector_only;

/* Vector and floating-point arithmetic has x111 in bits 28 to 25, a load or store x1x0 and bit 26 for a
 * vector register. */
static bool is_vector(uint32_t word) {
  const uint32_t group = word >> 25 & 15;
  return (group & 7) == 7 || ((group & 5) == 4 && (word >> 26 & 1) != 0);
}

/* Only the program's first thread counts: what others do meanwhile differs from run to run. */
static void executed(unsigned cpu, void* amount) {
  if (cpu == 0) instructions += (uintptr_t)amount;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb* tb) {
  (void)id;
  const size_t size = qemu_plugin_tb_n_insns(tb);
  uint64_t amount = size;
  if (vector_only) {
    amount = 0;
    for (size_t i = 0; i < size; ++i) {
      uint32_t word;
      memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i)), sizeof(word));
      amount += is_vector(word);
    }
  }
  if (amount > 0) {
    qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, QEMU_PLUGIN_CB_NO_REGS, (void*)(uintptr_t)amount);
  }
}

static void system_call(qemu_plugin_id_t id, unsigned cpu, int64_t number, uint64_t a1, uint64_t a2,
                        uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
  (void)id, (void)cpu, (void)a1, (void)a2, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
  if (number != kPread64 || a3 != sizeof(instructions)) return;
  if (pwrite(counter, &instructions, sizeof(instructions), 0) != sizeof(instructions)) {
    fprintf(stderr, "The instruction counter's file cannot be written.\n");
  }
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void* info, int count, char** arguments) {
  (void)info;
  for (int i = 0; i < count; ++i) {
    if (strncmp(arguments[i], "counter=", 8) == 0) {
      counter = open(arguments[i] + 8, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    } else if (strcmp(arguments[i], "vector=on") == 0) {
      vector_only = true;
    }
  }
  if (counter < 0) {
    fprintf(stderr, "The plugin that counts instructions needs counter=FILE.\n");
    return 1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_vcpu_syscall_cb(id, system_call);
  return 0;
}
