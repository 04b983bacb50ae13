// Threads that work on one step together and meet after each of its phases. Between phases they spin, since a phase lasts
// microseconds; between steps they sleep.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace janeox {

class Team {
public:
    explicit Team(int size) : size_(size) {
        for (int i = 1; i < size; i++) members_.emplace_back([this, i] { serve(i); });
    }

    ~Team() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            body_ = nullptr;
            round_++;
        }
        start_.notify_all();
        for (auto& member : members_) member.join();
    }

    int size() const { return size_; }

    // Every thread runs body(its number), the caller as 0; returns when all are done.
    void run(const std::function<void(int)>& body) {
        if (size_ > 1) {
            {
                std::lock_guard<std::mutex> lock(mutex_);
                body_ = &body;
                round_++;
            }
            start_.notify_all();
        }
        body(0);
        meet();
    }

    // Within run, called by every thread alike: work(i) for each i below count, shared out as threads become free.
    template <class Work>
    void each(int count, const Work& work) {
        for (int i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count;) work(i);
        meet();
    }

private:
    void serve(int number) {
        for (unsigned seen = 0;;) {
            const std::function<void(int)>* body;
            {
                std::unique_lock<std::mutex> lock(mutex_);
                start_.wait(lock, [&] { return round_ != seen; });
                seen = round_;
                body = body_;
            }
            if (!body) return;
            (*body)(number);
            meet();
        }
    }

    void meet() {
        const unsigned phase = phase_.load(std::memory_order_relaxed);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
            arrived_.store(0, std::memory_order_relaxed);
            next_.store(0, std::memory_order_relaxed);
            phase_.store(phase + 1, std::memory_order_release);
            return;
        }
        for (int spins = 0; phase_.load(std::memory_order_acquire) == phase; spins++) {
            if (spins < 10000) {
#if defined(__x86_64__)
                __builtin_ia32_pause();
#endif
            } else {
                std::this_thread::yield();  // more threads than free cores
            }
        }
    }

    const int size_;
    std::vector<std::thread> members_;
    std::mutex mutex_;
    std::condition_variable start_;
    const std::function<void(int)>* body_ = nullptr;
    unsigned round_ = 0;
    alignas(64) std::atomic<int> next_{0};
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<unsigned> phase_{0};
};

}  // namespace janeox
