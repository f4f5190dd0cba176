// Runs networks in an ONNX Runtime that it loads, where there may be no Python: the outputs of each, their
// latency in turns, their profiles.
//
//   dirnet_runner JOB
//
// JOB is a text of words, a statement a line; names and paths have no blanks in them.
//   runtime FILE                            libonnxruntime
//   operators FILE                          libdirnet_ops
//   threads N                               prints "threads N"
//   engine NAME MODEL dirnet|stock
//   input ENGINE NAME float32|uint64 FILE RANK DIMS...
//   output ENGINE NAME FILE                 where `check` writes the tensor
//   check                                   one inference of each engine
//   time ROUNDS BLOCK_MS WARMUP             prints "round K ENGINE MS" and "load K PROCESSORS"
//   profile RUNS TURNS                      prints "profile ENGINE FILE"
// What follows a `threads` holds for the sessions opened after it. Ends with "done", or with "error ..."
// and 1.
#include <dlfcn.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "clock.h"
#include "own_abi.h"

namespace dirnet::runner {

namespace {

using ort::Api;

[[noreturn]] void fail(const std::string& message) { throw std::runtime_error(message); }

struct Input {
  std::string name;
  int type;
  std::vector<char> data;
  std::vector<int64_t> dims;
};

struct Output {
  std::string name;
  std::string file;
};

struct Engine {
  std::string model;
  bool with_operators = false;
  std::vector<Input> inputs;
  std::vector<Output> outputs;
};

class Runtime {
 public:
  explicit Runtime(const std::string& path) {
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
    if (library == nullptr) fail(dlerror());
    auto base = reinterpret_cast<const ort::ApiBase* (*)()>(dlsym(library, "OrtGetApiBase"));
    if (base == nullptr) fail(path + " is no ONNX Runtime");
    api_ = base()->GetApi(ort::kApiVersion);
    if (api_ == nullptr) fail("this ONNX Runtime is older than 1.18");
    std::printf("runtime %s\n", base()->GetVersionString());
    check(api_->CreateEnv(ort::kErrorsOnly, "dirnet", &env_));
  }

  const Api& api() const { return *api_; }
  const OrtEnv* env() const { return env_; }

  void check(OrtStatus* status) const {
    if (status == nullptr) return;
    std::string message = api_->GetErrorMessage(status);
    api_->ReleaseStatus(status);
    std::replace(message.begin(), message.end(), '\n', ' ');
    fail(message);
  }

 private:
  const Api* api_ = nullptr;
  OrtEnv* env_ = nullptr;
};

class Session {
 public:
  Session(const Runtime& runtime, Engine& engine, const std::string& operators, int threads,
          const std::string& profile_prefix)
      : runtime_(runtime), engine_(engine) {
    const Api& api = runtime.api();
    OrtSessionOptions* options = nullptr;
    runtime.check(api.CreateSessionOptions(&options));
    runtime.check(api.SetIntraOpNumThreads(options, threads));
    if (!profile_prefix.empty()) runtime.check(api.EnableProfiling(options, profile_prefix.c_str()));
    void* library = nullptr;
    if (engine.with_operators) {
      runtime.check(api.RegisterCustomOpsLibrary(options, operators.c_str(), &library));
    }
    runtime.check(api.CreateSession(runtime.env(), engine.model.c_str(), options, &session_));
    api.ReleaseSessionOptions(options);
    OrtMemoryInfo* memory = nullptr;
    runtime.check(api.CreateCpuMemoryInfo(ort::kArenaAllocator, ort::kDefaultMemory, &memory));
    for (Input& input : engine.inputs) {
      OrtValue* value = nullptr;
      runtime.check(api.CreateTensorWithDataAsOrtValue(memory, input.data.data(), input.data.size(),
                                                       input.dims.data(), input.dims.size(), input.type,
                                                       &value));
      values_.push_back(value);
      input_names_.push_back(input.name.c_str());
    }
    api.ReleaseMemoryInfo(memory);
    for (const Output& output : engine.outputs) output_names_.push_back(output.name.c_str());
  }

  ~Session() {
    for (OrtValue* value : values_) runtime_.api().ReleaseValue(value);
    runtime_.api().ReleaseSession(session_);
  }

  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  void run() { release(infer()); }

  // Runs once and writes every output into its file.
  void run_and_write() {
    const std::vector<OrtValue*> outputs = infer();
    for (size_t i = 0; i < outputs.size(); ++i) write(outputs[i], engine_.outputs[i]);
    release(outputs);
  }

  std::string end_profiling() {
    OrtAllocator* allocator = nullptr;
    char* path = nullptr;
    runtime_.check(runtime_.api().GetAllocatorWithDefaultOptions(&allocator));
    runtime_.check(runtime_.api().SessionEndProfiling(session_, allocator, &path));
    return path;
  }

 private:
  std::vector<OrtValue*> infer() {
    std::vector<OrtValue*> outputs(output_names_.size(), nullptr);
    runtime_.check(runtime_.api().Run(session_, nullptr, input_names_.data(), values_.data(), values_.size(),
                                      output_names_.data(), outputs.size(), outputs.data()));
    return outputs;
  }

  void release(const std::vector<OrtValue*>& outputs) {
    for (OrtValue* output : outputs) runtime_.api().ReleaseValue(output);
  }

  void write(OrtValue* value, const Output& output) const {
    const Api& api = runtime_.api();
    OrtTensorTypeAndShapeInfo* info = nullptr;
    runtime_.check(api.GetTensorTypeAndShape(value, &info));
    int type = 0;
    size_t rank = 0;
    runtime_.check(api.GetTensorElementType(info, &type));
    runtime_.check(api.GetDimensionsCount(info, &rank));
    std::vector<int64_t> dims(rank);
    runtime_.check(api.GetDimensions(info, dims.data(), rank));
    api.ReleaseTensorTypeAndShapeInfo(info);
    // Detectors also give int64 labels.
    constexpr int kInt64 = 7;
    if (type != ort::kFloat32 && type != ort::kUint64 && type != kInt64) {
      fail(output.name + " has a type that is not handled");
    }
    int64_t count = 1;
    for (const int64_t dim : dims) count *= dim;
    void* data = nullptr;
    runtime_.check(api.GetTensorMutableData(value, &data));
    std::ofstream file(output.file, std::ios::binary);
    file.write(static_cast<const char*>(data), count * (type == ort::kFloat32 ? 4 : 8));
    if (!file.flush()) fail("no space left to write " + output.file);
  }

  const Runtime& runtime_;
  const Engine& engine_;
  OrtSession* session_ = nullptr;
  std::vector<OrtValue*> values_;
  std::vector<const char*> input_names_;
  std::vector<const char*> output_names_;
};

// Seconds of processor time that everything but this process has used; negative where the system tells none.
double others_s() {
  std::ifstream file("/proc/stat");
  std::string cpu;
  double user = 0, nice = 0, system = 0, idle = 0, wait = 0, irq = 0, soft = 0, steal = 0;
  if (!(file >> cpu >> user >> nice >> system >> idle >> wait >> irq >> soft >> steal)) return -1;
  const double busy = (user + nice + system + irq + soft + steal) / static_cast<double>(sysconf(_SC_CLK_TCK));
  return busy - static_cast<double>(clock()) / CLOCKS_PER_SEC;
}

class Job {
 public:
  void run(std::istream& lines) {
    std::string line;
    while (std::getline(lines, line)) {
      std::istringstream words(line);
      std::string verb;
      if (words >> verb) statement(verb, words);
    }
    std::printf("done\n");
  }

 private:
  using Sessions = std::vector<std::pair<std::string, std::unique_ptr<Session>>>;

  template <class T = std::string>
  static T next(std::istringstream& words) {
    T value;
    if (!(words >> value)) fail("a statement of the job is too short");
    return value;
  }

  void statement(const std::string& verb, std::istringstream& words) {
    if (verb == "runtime") {
      runtime_ = std::make_unique<Runtime>(next(words));
    } else if (verb == "operators") {
      operators_ = next(words);
    } else if (verb == "threads") {
      threads_ = next<int>(words);
      std::printf("threads %d\n", threads_);
    } else if (verb == "engine") {
      const std::string name = next(words);
      order_.push_back(name);
      engines_[name].model = next(words);
      engines_[name].with_operators = next(words) == "dirnet";
    } else if (verb == "input") {
      input(words);
    } else if (verb == "output") {
      Engine& engine = engines_[next(words)];
      const std::string name = next(words);
      engine.outputs.push_back({name, next(words)});
    } else if (verb == "check") {
      for (auto& session : open("")) session.second->run_and_write();
    } else if (verb == "time") {
      const int rounds = next<int>(words);
      const double block_ms = next<double>(words);
      time_in_turns(rounds, block_ms, next<int>(words));
    } else if (verb == "profile") {
      const int runs = next<int>(words);
      profile(runs, next<int>(words));
    } else {
      fail("the job has an unknown statement: " + verb);
    }
  }

  void input(std::istringstream& words) {
    Engine& engine = engines_[next(words)];
    Input input;
    input.name = next(words);
    input.type = next(words) == "uint64" ? ort::kUint64 : ort::kFloat32;
    const std::string path = next(words);
    input.dims.resize(next<size_t>(words));
    int64_t count = input.type == ort::kUint64 ? 8 : 4;
    for (int64_t& dim : input.dims) count *= dim = next<int64_t>(words);
    input.data.resize(static_cast<size_t>(count));
    std::ifstream file(path, std::ios::binary);
    if (!file.read(input.data.data(), count)) fail("cannot read " + path);
    engine.inputs.push_back(std::move(input));
  }

  Sessions open(const std::string& profile_prefix) {
    if (runtime_ == nullptr) fail("the job names no runtime");
    Sessions sessions;
    for (const std::string& name : order_) {
      const std::string prefix = profile_prefix.empty() ? "" : profile_prefix + name;
      sessions.emplace_back(
          name, std::make_unique<Session>(*runtime_, engines_[name], operators_, threads_, prefix));
    }
    return sessions;
  }

  // Milliseconds of one inference: the median over `calls`. The first is not counted: the caches are full of
  // another session's data, and that session's threads may still be spinning.
  static double block_ms(Session& session, int calls) {
    usleep(5000);
    session.run();
    std::vector<int64_t> times;
    for (int i = 0; i < calls; ++i) {
      const int64_t began = now_ns();
      session.run();
      times.push_back(now_ns() - began);
    }
    std::sort(times.begin(), times.end());
    const size_t half = times.size() / 2;
    const int64_t twice = times.size() % 2 == 1 ? 2 * times[half] : times[half - 1] + times[half];
    return static_cast<double>(twice) / 2e6;
  }

  void time_in_turns(int rounds, double target_ms, int warmup) {
    Sessions sessions = open("");
    std::vector<int> calls;
    for (auto& session : sessions) {
      for (int i = 0; i < warmup; ++i) session.second->run();
      const double once_ms = std::max(block_ms(*session.second, 3), 1e-4);
      calls.push_back(static_cast<int>(std::clamp(target_ms / once_ms, 3.0, 10000.0)));
    }
    for (int round = 0; round < rounds; ++round) {
      const double others = others_s();
      const int64_t began = now_ns();
      for (size_t i = 0; i < sessions.size(); ++i) {
        // Every other round backwards: no engine always follows the same one.
        const size_t k = round % 2 == 0 ? i : sessions.size() - 1 - i;
        std::printf("round %d %s %.6f\n", round, sessions[k].first.c_str(),
                    block_ms(*sessions[k].second, calls[k]));
      }
      if (others >= 0) {
        const double load = (others_s() - others) / (static_cast<double>(now_ns() - began) / 1e9);
        std::printf("load %d %.4f\n", round, std::max(load, 0.0));
      }
      std::fflush(stdout);
    }
  }

  void profile(int runs, int turns) {
    Sessions sessions = open("profile_" + std::to_string(threads_) + "_");
    for (int turn = 0; turn < turns; ++turn) {
      for (auto& session : sessions) {
        for (int i = 0; i < runs; ++i) session.second->run();
      }
    }
    for (auto& session : sessions) {
      std::printf("profile %s %s\n", session.first.c_str(), session.second->end_profiling().c_str());
    }
  }

  std::unique_ptr<Runtime> runtime_;
  std::string operators_;
  int threads_ = 1;
  std::vector<std::string> order_;
  std::map<std::string, Engine> engines_;
};

}  // namespace

}  // namespace dirnet::runner

int main(int count, char** arguments) {
  if (count != 2) {
    std::fprintf(stderr, "usage: %s JOB\n", arguments[0]);
    return 2;
  }
  std::ifstream job(arguments[1]);
  try {
    if (!job) throw std::runtime_error(std::string("cannot read ") + arguments[1]);
    dirnet::runner::Job().run(job);
  } catch (const std::exception& error) {
    std::printf("error %s\n", error.what());
    return 1;
  }
  return 0;
}
