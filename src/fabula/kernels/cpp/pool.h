// Threads that run one job together, meet at barriers, and sleep when there is none.
#pragma once
#include <atomic>
#include <cstdint>
#include <mutex>

namespace fabula {

class Pool {
 public:
  using Job = void (*)(void* data, int thread);

  explicit Pool(int threads) : size_(threads < 1 ? 1 : threads) {}
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int size() const { return size_; }
  // Held by whoever prepares and runs a job: one at a time.
  std::unique_lock<std::mutex> lock();
  // Runs the job on every thread, the caller being thread 0; returns when all are done.
  void run(Job job, void* data);
  // Returns when all threads of the job are here.
  void barrier();

 private:
  struct Workers;
  void start();

  int size_;
  int64_t process_ = 0;  // whose threads they are: a forked child starts its own
  Workers* workers_ = nullptr;
  std::mutex first_;
};

}  // namespace fabula
