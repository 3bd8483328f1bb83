# Twenty children, each writes to memory it shares with its parent until then.
use strict;
my @data = map { $_ * 3 } 1 .. 20_000;
my %status;
for my $n (1 .. 20) {
    my $pid = fork;
    die "fork: $!" unless defined $pid;
    if ($pid == 0) {
        $_ += $n for @data;
        my $sum = 0;
        $sum += $_ for @data;
        exit($sum % 251);
    }
    $status{$pid} = $n;
}
my @codes;
while ((my $pid = wait) > 0) { $codes[$status{$pid}] = $? >> 8; }
print join(' ', @codes[1 .. 20]), "\n";
my $sum = 0;
$sum += $_ for @data;
print "$sum\n";
