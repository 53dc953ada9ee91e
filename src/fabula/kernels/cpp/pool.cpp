// The pool: waiting threads spin for a moment, then yield, then sleep.
#include "pool.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>
#if defined(_WIN32)
#include <process.h>
#else
#include <unistd.h>
#endif

namespace fabula {
namespace {

constexpr int kSpins = 2000;                               // pauses before a waiting thread yields
constexpr auto kAwake = std::chrono::microseconds(1500);  // how long an idle thread yields before it sleeps

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

int64_t process_id() {
#if defined(_WIN32)
  return _getpid();
#else
  return getpid();
#endif
}

}  // namespace

struct Pool::Workers {
  alignas(64) std::atomic<uint32_t> generation{0};  // counts jobs
  alignas(64) std::atomic<int> arrived{0};
  alignas(64) std::atomic<uint32_t> phase{0};       // counts barriers
  alignas(64) std::atomic<int> asleep{0};
  bool ending = false;
  Job job = nullptr;
  void* data = nullptr;
  std::mutex running;  // see Pool::lock
  std::mutex mutex;    // guards sleeping
  std::condition_variable wake;
  std::vector<std::thread> threads;

  uint32_t wait(uint32_t seen) {
    for (int i = 0; i < kSpins; i++, pause())
      if (generation.load(std::memory_order_acquire) != seen) return seen + 1;
    auto end = std::chrono::steady_clock::now() + kAwake;
    while (std::chrono::steady_clock::now() < end) {
      if (generation.load(std::memory_order_acquire) != seen) return seen + 1;
      std::this_thread::yield();
    }
    std::unique_lock<std::mutex> lock(mutex);
    asleep.fetch_add(1);
    wake.wait(lock, [&] { return generation.load() != seen; });
    asleep.fetch_sub(1);
    return seen + 1;
  }

  void announce() {
    generation.fetch_add(1);
    if (asleep.load() > 0) {
      std::lock_guard<std::mutex> lock(mutex);
      wake.notify_all();
    }
  }
};

void Pool::start() {
  // After a fork the threads of the old workers do not exist here, and their locks may be held: they are left behind.
  workers_ = new Workers;
  process_ = process_id();
  Workers* w = workers_;
  for (int t = 1; t < size_; t++)
    w->threads.emplace_back([this, w, t] {
      for (uint32_t seen = 0;;) {
        seen = w->wait(seen);
        if (w->ending) return;
        w->job(w->data, t);
        barrier();
      }
    });
}

Pool::~Pool() {
  if (!workers_ || process_ != process_id()) return;
  workers_->ending = true;
  workers_->announce();
  for (auto& t : workers_->threads) t.join();
  delete workers_;
}

std::unique_lock<std::mutex> Pool::lock() {
  {
    std::lock_guard<std::mutex> starting(first_);
    if (!workers_ || process_ != process_id()) start();
  }
  return std::unique_lock<std::mutex>(workers_->running);
}

void Pool::run(Job job, void* data) {
  if (size_ == 1) return job(data, 0);
  workers_->job = job;
  workers_->data = data;
  workers_->announce();
  job(data, 0);
  barrier();
}

void Pool::barrier() {
  if (size_ == 1) return;
  Workers& w = *workers_;
  uint32_t phase = w.phase.load(std::memory_order_relaxed);
  if (w.arrived.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
    w.arrived.store(0, std::memory_order_relaxed);
    w.phase.store(phase + 1, std::memory_order_release);
    return;
  }
  for (int spins = 0; w.phase.load(std::memory_order_acquire) == phase; spins++) {
    if (spins < kSpins) pause();
    else std::this_thread::yield();
  }
}

}  // namespace fabula
