// Streams that really run beside the host: each has a thread and a queue, so that memory that is used too early is seen.
#pragma once
#include <cuda.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace fake {

// Something queued, and whether it is done.
class Ticket {
  public:
    void wait();
    void done();
    bool ready();

  private:
    std::mutex mutex;
    std::condition_variable changed;
    bool is_done = false;
};
using TicketPtr = std::shared_ptr<Ticket>;

class Stream {
  public:
    explicit Stream(bool blocking);
    ~Stream();  // finishes what is queued
    TicketPtr push(std::vector<TicketPtr> after, std::function<void()> work);
    TicketPtr tail();  // of what was queued last; null if nothing
    const bool blocking;  // waits for the default stream, which waits for it

  private:
    void run();
    struct Item {
        std::vector<TicketPtr> after;
        std::function<void()> work;
        TicketPtr ticket;
    };
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<Item> queue;
    TicketPtr last;
    bool closing = false;
    std::thread thread;
};

}  // namespace fake
