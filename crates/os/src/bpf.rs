//! Programs that choose a socket of a group that shares its port.
//!
//! The kernel spreads connections over such a group by a hash, which is even
//! only on average and does not know who is alive. [`Turns`] attaches a program
//! that takes the live members in strict turn (SO_ATTACH_REUSEPORT_EBPF of
//! socket(7), bpf(2)); [`attach_random`] one that needs no privilege and
//! chooses among them at random. Members are named by their index in the group:
//! the order of listen(2). The programs are a few instructions, written out
//! here; nothing is compiled, loaded from a file or kept in a file system. A
//! group lives on with its program when the process that attached it is gone.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// The most members a program chooses from; beyond, the hash decides.
pub const LIVE_LIMIT: usize = 256;

/// Commands of bpf(2).
const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;

const MAP_TYPE_ARRAY: u32 = 2;
/// A program that sees the packet and returns the index.
const PROG_TYPE_SOCKET_FILTER: u32 = 1;

/// Keys of the map: whose turn, how many are live, then the live ones.
const TURN: u32 = 0;
const COUNT: u32 = 1;
const FIRST_LIVE: u32 = 2;

/// An index no group has: the kernel falls back to its hash.
const NO_INDEX: i32 = -1;

/// One instruction (linux/bpf.h, `struct bpf_insn`).
#[repr(C)]
#[derive(Clone, Copy)]
struct Insn {
    code: u8,
    /// Destination below, source above.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn insn(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Insn {
    Insn {
        code,
        registers: destination | source << 4,
        offset,
        immediate,
    }
}

/// The first fields of `union bpf_attr` for MAP_CREATE.
#[repr(C)]
#[derive(Default)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

/// The same for MAP_UPDATE_ELEM.
#[repr(C)]
#[derive(Default)]
struct MapUpdate {
    map_fd: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The same for PROG_LOAD.
#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// A program that takes the live members of one group in strict turn.
#[derive(Debug)]
pub struct Turns {
    map: OwnedFd,
    program: OwnedFd,
}

impl Turns {
    /// Loads a program; none is live, so it leaves the choice to the hash.
    ///
    /// # Errors
    /// `EPERM` without CAP_BPF (or CAP_SYS_ADMIN before Linux 5.8), unless
    /// `kernel.unprivileged_bpf_disabled` is 0; `EINVAL` before Linux 5.12,
    /// which knows no atomic fetch; `ENOSYS` without bpf(2).
    pub fn load() -> io::Result<Turns> {
        let attributes = MapCreate {
            map_type: MAP_TYPE_ARRAY,
            key_size: 4,
            value_size: 8,
            max_entries: FIRST_LIVE + LIVE_LIMIT as u32,
            map_flags: 0,
        };
        let map = new_fd(bpf(MAP_CREATE, &attributes)?);
        let program = program(map.as_raw_fd());
        let license = c"MIT";
        let attributes = ProgLoad {
            prog_type: PROG_TYPE_SOCKET_FILTER,
            insn_cnt: program.len() as u32,
            insns: program.as_ptr() as u64,
            license: license.as_ptr() as u64,
            ..ProgLoad::default()
        };
        let program = new_fd(bpf(PROG_LOAD, &attributes)?);
        Ok(Turns { map, program })
    }

    /// Lets the program choose for the group of `member`, in place of whatever
    /// chose before.
    ///
    /// # Errors
    /// `EINVAL` if `member` is alone on its port.
    pub fn attach(&self, member: impl AsFd) -> io::Result<()> {
        let program: RawFd = self.program.as_raw_fd();
        set_option(member, libc::SO_ATTACH_REUSEPORT_EBPF, &program)
    }

    /// Sets who has a turn. A connection under way meanwhile goes to one that
    /// is live before or after. None, or more than [`LIVE_LIMIT`], is the hash.
    ///
    /// # Errors
    /// Of bpf(2); none is expected.
    pub fn set_live(&self, live: &[u32]) -> io::Result<()> {
        let count = if live.len() > LIVE_LIMIT {
            0
        } else {
            live.len()
        };
        for (key, index) in (FIRST_LIVE..).zip(&live[..count]) {
            self.update(key, u64::from(*index))?;
        }
        self.update(COUNT, count as u64)
    }

    fn update(&self, key: u32, value: u64) -> io::Result<()> {
        let attributes = MapUpdate {
            map_fd: self.map.as_raw_fd() as u32,
            key: &raw const key as u64,
            value: &raw const value as u64,
            ..MapUpdate::default()
        };
        bpf(MAP_UPDATE_ELEM, &attributes).map(drop)
    }
}

/// Lets the kernel choose at random among these members of the group of
/// `member`, in place of whatever chose before. Needs no privilege.
///
/// # Errors
/// `EINVAL` if `member` is alone on its port, or for none or more than
/// [`LIVE_LIMIT`] live ones.
pub fn attach_random(member: impl AsFd, live: &[u32]) -> io::Result<()> {
    if live.is_empty() || live.len() > LIVE_LIMIT {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let op = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let random = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM) as u32;
    let mut program = vec![
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, random),
        op(
            libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K,
            0,
            0,
            live.len() as u32,
        ),
    ];
    for (turn, index) in (0..).zip(live) {
        program.push(op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, turn));
        program.push(op(libc::BPF_RET | libc::BPF_K, 0, 0, *index));
    }
    program.push(op(libc::BPF_RET | libc::BPF_K, 0, 0, NO_INDEX as u32));
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    set_option(member, libc::SO_ATTACH_REUSEPORT_CBPF, &program)
}

/// count = map[COUNT]; turn = fetch_add(map[TURN], 1);
/// return map[FIRST_LIVE + turn % count], or no index if anything is missing.
fn program(map: RawFd) -> Vec<Insn> {
    // How far the end is from the instruction that jumps there is filled in
    // below: the offset of each such jump is its own place until then.
    let mut program = Vec::with_capacity(32);
    program.push(insn(0x62, 10, 0, -4, COUNT as i32)); // *(u32*)(fp - 4) = COUNT
    lookup(map, &mut program);
    program.push(insn(0x79, 7, 0, 0, 0)); // r7 = *(u64*)r0
    program.push(insn(0x15, 7, 0, JUMP, 0)); // if r7 == 0 goto end
    program.push(insn(0x62, 10, 0, -4, TURN as i32));
    lookup(map, &mut program);
    program.push(insn(0xb7, 8, 0, 0, 1)); // r8 = 1
    program.push(insn(0xdb, 0, 8, 0, 0x01)); // r8 = atomic fetch_add *(u64*)r0, r8
    program.push(insn(0x9f, 8, 7, 0, 0)); // r8 %= r7
    program.push(insn(0x07, 8, 0, 0, FIRST_LIVE as i32)); // r8 += FIRST_LIVE
    program.push(insn(0x63, 10, 8, -4, 0)); // *(u32*)(fp - 4) = r8
    lookup(map, &mut program);
    program.push(insn(0x79, 0, 0, 0, 0)); // r0 = *(u64*)r0
    program.push(insn(0x95, 0, 0, 0, 0)); // return
    let end = program.len();
    program.push(insn(0xb4, 0, 0, 0, NO_INDEX)); // w0 = NO_INDEX
    program.push(insn(0x95, 0, 0, 0, 0));
    for (at, step) in program.iter_mut().enumerate() {
        if step.offset == JUMP {
            step.offset = (end - at - 1) as i16;
        }
    }
    program
}

/// Marks a jump to the end.
const JUMP: i16 = i16::MAX;

/// r0 = address of map[*(u32*)(fp - 4)], or to the end.
fn lookup(map: RawFd, program: &mut Vec<Insn>) {
    program.extend([
        insn(0x18, 1, 1, 0, map), // r1 = map, in two instructions
        insn(0, 0, 0, 0, 0),
        insn(0xbf, 2, 10, 0, 0), // r2 = fp
        insn(0x07, 2, 0, 0, -4), // r2 -= 4
        insn(0x85, 0, 0, 0, 1),  // bpf_map_lookup_elem
        insn(0x15, 0, 0, JUMP, 0),
    ]);
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<RawFd> {
    // SAFETY: the attributes are those of the command and outlive the call, as
    // does everything they point at; the size says where they end.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(done as RawFd)
}

fn new_fd(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor, close-on-exec, for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn set_option<T>(socket: impl AsFd, name: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the value is of the type the option takes and outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
