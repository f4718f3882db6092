-- The gate, then the reservation. The two scripts stand before this text as the functions `gate`
-- and `reserve` of their own KEYS and ARGV.
--
-- KEYS  those of the gate, then the four of the reservation
-- ARGV  those of the gate, then the six of the reservation
--
-- Returns the gate's answer and that of the reservation, which is empty when the gate refuses.
local keys, arguments = #KEYS, #ARGV
local sale = {KEYS[keys - 3], KEYS[keys - 2], KEYS[keys - 1], KEYS[keys]}
local order = {unpack(ARGV, arguments - 5)}
-- The gate takes its last key for that of the sessions.
KEYS[keys - 3], KEYS[keys - 2], KEYS[keys - 1], KEYS[keys] = nil, nil, nil, nil
local entered = gate(KEYS, ARGV)
if entered[1] ~= 0 then return {entered, {}} end
return {entered, reserve(sale, order)}
